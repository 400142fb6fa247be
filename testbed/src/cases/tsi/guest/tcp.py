# The guest's TCP connections to the host.
PORT = int(HOST["port"])


def connected6():
    return socket.create_connection((LOOPBACK6, PORT))


@check
def tcp_over_ipv4_echoes():
    echoes(connected)


@check
def tcp_over_ipv6_echoes():
    echoes(connected6)


@check
def tcp_names_are_the_hosts():
    with ask("echo") as stream:
        same(stream.getpeername(), (LOOPBACK4, PORT))
        stream.getsockname()
    with ask("echo", connected6) as stream:
        same(stream.getpeername()[:2], (LOOPBACK6, PORT))
    same(answer("name").rsplit(":", 1)[0], LOOPBACK4)


@check
def tcp_by_a_mapped_address_reaches_the_ipv4_host():
    with socket.socket(socket.AF_INET6) as stream:
        stream.connect(("::ffff:127.0.0.1", PORT))
        stream.sendall(b"name\n")
        assert read_all(stream)


@check
def tcp_port_that_nobody_listens_on_is_econnrefused():
    for address in [(LOOPBACK4, 1), (LOOPBACK6, 1)]:
        fails_with(errno.ECONNREFUSED, socket.create_connection, address)


@check
def tcp_destination_without_a_route_is_enetunreach():
    # TCP has no route to a broadcast or multicast address, whatever the host is connected to.
    fails_with(errno.ENETUNREACH, socket.create_connection, ("255.255.255.255", 80))
    fails_with(errno.ENETUNREACH, socket.create_connection, ("224.0.0.1", 80))


@check
def tcp_destination_that_the_policy_denies_is_eacces():
    fails_with(errno.EACCES, socket.create_connection, (LOOPBACK4, int(HOST["denied"])))
    fails_with(errno.EACCES, socket.create_connection, ("169.254.169.254", 80))


@check
def tcp_socket_that_failed_can_connect_again():
    with socket.socket() as stream:
        fails_with(errno.ECONNREFUSED, stream.connect, (LOOPBACK4, 1))
        stream.connect((LOOPBACK4, PORT))
        stream.sendall(b"name\n")
        assert read_all(stream)


@check
def tcp_nonblocking_connect_is_connected():
    with socket.socket() as stream:
        stream.setblocking(False)
        number = stream.connect_ex((LOOPBACK4, PORT))
        assert number in (0, errno.EINPROGRESS), errno.errorcode[number]
        assert select.select([], [stream], [], 10)[1], "it never becomes writable"
        same(stream.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR), 0)
        stream.setblocking(True)
        stream.sendall(b"name\n")
        assert read_all(stream)


@check
def tcp_one_write_of_65536_bytes_arrives():
    carries_writes(connected, "one-write", 65536, 65536)


@check
def tcp_1_mib_in_16_kib_writes_arrives():
    carries_writes(connected, "1-MiB", 1 << 20, 16384)


@check
def tcp_4_mib_in_odd_writes_arrives():
    carries_writes(connected, "4-MiB", 4 << 20, 32405)


@check
def tcp_sendfile_arrives():
    data = noise(1_000_000)
    path = "/tmp/tcp-sendfile"
    with open(path, "wb") as file:
        file.write(data)
    with open(path, "rb") as file, ask("sink file") as stream:
        stream.sendfile(file)
        stream.shutdown(socket.SHUT_WR)
        same(read_all(stream).decode(), summary(data))
    os.unlink(path)


@check
def tcp_host_that_closes_at_once_loses_nothing():
    for count in [1, 3732, 3733, 150_000]:
        carries_host_writes(connected, count, count)
        carries_host_writes(connected, count, count, pause=0.3)


@check
def tcp_1500_small_host_writes_wait_for_a_reader_who_sleeps():
    carries_host_writes(connected, 225_000, 150, pause=4)


@check
def tcp_100_byte_host_writes_reach_a_slow_reader():
    carries_host_writes(connected, 100_000, 100, pause=1)


@check
def tcp_half_closed_by_the_guest_brings_the_answer():
    half_closed_by_guest(connected, "guest-ends")


@check
def tcp_half_closed_by_the_host_still_takes_data():
    half_closed_by_host(connected, "host-ends")


@check
def tcp_slow_host_gets_16_mib_and_holds_up_nobody():
    slow_host_gets_all(connected, "stalled", 16 << 20)


@check
def tcp_slow_guest_gets_16_mib():
    slow_guest_gets_all(connected, 16 << 20, 65536)


@check
def tcp_reset_by_the_host_is_an_end():
    with ask("reset") as stream:
        same(read_line(stream), "soon")
        stream.sendall(b"x")
        # A guest that reads is told of an end by this kernel, one that writes of a broken pipe.
        try:
            same(stream.recv(1), b"")
        except ConnectionResetError:
            pass
        eventually(lambda: broken(stream), "writes go on after a reset")


def broken(stream):
    try:
        stream.send(b"x")
    except (BrokenPipeError, ConnectionResetError):
        return True
    return False


@check
def tcp_peeking_and_nonblocking_reads_work():
    with ask("echo") as stream:
        stream.setblocking(False)
        fails_with(errno.EAGAIN, stream.recv, 1)
        stream.setblocking(True)
        stream.sendall(b"peeked")
        same(stream.recv(3, socket.MSG_PEEK), b"pee")
        stream.settimeout(5)
        same(stream.recv(100), b"peeked")
        stream.settimeout(0.2)
        try:
            stream.recv(1)
        except TimeoutError:
            pass
        else:
            raise AssertionError("a read came back with nothing sent")


@check
def tcp_within_the_guest_stays_there():
    with socket.socket() as listener:
        listener.bind((LOOPBACK4, 0))
        listener.listen()
        with socket.create_connection(listener.getsockname()) as client:
            server, address = listener.accept()
            with server:
                same(address, client.getsockname())
                client.sendall(b"local")
                same(server.recv(10), b"local")
