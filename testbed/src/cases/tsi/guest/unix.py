# The guest's AF_UNIX sockets. FOLDER is the same folder in the guest and, beneath the root, on the host.
FOLDER = HOST["folder"]
PEER = FOLDER + "/stream-of-the-host"
DATAGRAMS = FOLDER + "/datagrams-of-the-host"


def connected():
    stream = socket.socket(socket.AF_UNIX)
    stream.connect(PEER)
    return stream


def refused(address):
    with socket.socket(socket.AF_UNIX) as stream:
        try:
            stream.connect(address)
        except OSError as error:
            return error
    raise AssertionError("%r was connected to" % address)


@check
def unix_socket_of_the_host_beneath_the_root_echoes():
    echoes(connected)


@check
def unix_names_are_the_paths():
    with ask("echo") as stream:
        same(stream.getpeername(), PEER)


@check
def unix_one_write_of_65536_bytes_arrives():
    carries_writes(connected, "unix-one", 65536, 65536)


@check
def unix_1_mib_in_16_kib_writes_arrives():
    carries_writes(connected, "unix-1-MiB", 1 << 20, 16384)


@check
def unix_host_that_closes_at_once_loses_nothing():
    carries_host_writes(connected, 150_000, 150_000)
    carries_host_writes(connected, 150_000, 150_000, pause=0.5)


@check
def unix_half_closed_by_the_guest_brings_the_answer():
    half_closed_by_guest(connected, "unix-guest-ends")


@check
def unix_half_closed_by_the_host_still_takes_data():
    half_closed_by_host(connected, "unix-host-ends")


@check
def unix_slow_host_gets_4_mib_and_holds_up_nobody():
    slow_host_gets_all(connected, "unix-stalled", 4 << 20)


@check
def unix_datagram_reaches_the_host():
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as stream:
        stream.sendto(b"note unix-datagram first", DATAGRAMS)
        same(answer("note unix-datagram"), "first")
        stream.settimeout(10)
        stream.sendto(b"reply 100", DATAGRAMS)
        same(len(stream.recv(1000)), 100)


@check
def unix_socket_outside_the_root_is_refused():
    for path in (HOST["outside"], FOLDER + "/../../../../../../.." + HOST["outside"]):
        same(errno.errorcode[refused(path).errno], "ENOENT", path)


@check
def unix_links_do_not_lead_out_of_the_root():
    for name in ("absolute-link", "climbing-link"):
        refused(FOLDER + "/" + name)


@check
def unix_path_without_a_listener_is_econnrefused():
    same(errno.errorcode[refused(FOLDER + "/nobody-listens").errno], "ECONNREFUSED")


@check
def unix_relative_path_reaches_no_host_socket():
    os.chdir(FOLDER)
    refused("stream-of-the-host")
    os.chdir("/")


@check
def unix_abstract_name_of_the_host_is_econnrefused():
    same(errno.errorcode[refused("\0" + HOST["abstract"]).errno], "ECONNREFUSED")


@check
def unix_listener_not_published_is_reached_in_the_guest_only():
    path = FOLDER + "/listener-of-the-guest"
    with socket.socket(socket.AF_UNIX) as listener, socket.socket(socket.AF_UNIX) as client:
        listener.bind(path)
        listener.listen()
        same(answer("dial unix:%s%s" % (HOST["root"], path)), "errno %d" % errno.ECONNREFUSED)
        client.connect(path)
        server, _ = listener.accept()
        with server:
            client.sendall(b"local")
            same(server.recv(10), b"local")
    os.unlink(path)


@check
def unix_listener_published_is_reached_from_the_host():
    path = FOLDER + "/published/listener-of-the-guest"
    for text in ("hello", "again"):
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(path)
            listener.listen()
            said = background(answer, "dial unix:%s%s talk %s" % (HOST["root"], path, text))
            stream, _ = listener.accept()
            with stream:
                stream.sendall(b"answer to " + read_all(stream))
            same(said().strip(), "answer to " + text)
        # The host's socket at that path goes with the listener.
        eventually(lambda: not os.path.exists(path), "the socket stays at its path")


@check
def unix_abstract_listener_is_reached_in_the_guest():
    with socket.socket(socket.AF_UNIX) as listener, socket.socket(socket.AF_UNIX) as client:
        listener.bind("\0of the guest")
        listener.listen()
        client.connect("\0of the guest")
        listener.accept()[0].close()


@check
def unix_pair_works_within_the_guest():
    for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
        one, other = socket.socketpair(type=kind)
        with one, other:
            one.sendall(b"pair")
            same(other.recv(10), b"pair")


@check
def unix_connected_datagrams_stay_within_the_guest():
    path = FOLDER + "/datagrams-of-the-guest"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as server:
        server.bind(path)
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as client:
            client.connect(path)
            client.send(b"local")
            same(server.recv(10), b"local")
    os.unlink(path)
