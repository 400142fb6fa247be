# Programs in the guest that listen. HOST has, for each published port, the guest's and the host's number of it.
import subprocess

SAME, REMAPPED, TAKEN = int(HOST["same"]), int(HOST["guest_port"]), int(HOST["taken"])


def listening(port, family=socket.AF_INET, address=None):
    listener = socket.socket(family)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind((address if address is not None else ("::" if family == socket.AF_INET6 else "0.0.0.0"), port))
    listener.listen(16)
    return listener


def dialed(host_port, what="", host=LOOPBACK4):
    """What the host says that came of connecting to its port; to be called for the answer."""
    return background(answer, " ".join(("dial %s:%s %s" % (host, host_port, what)).split()))


def closed_on_the_host(port):
    same(dialed(port)(), "errno %d" % errno.ECONNREFUSED, "what the host says")


def serve_one(listener):
    """Accepts, reads to the end, answers; returns the client's address."""
    stream, address = listener.accept()
    with stream:
        data = read_all(stream)
        stream.sendall(b"answer to " + data)
    return address


def served(listener, host_port, host=LOOPBACK4):
    said = dialed(host_port, "talk hello", host)
    address = serve_one(listener)
    own, text = said().split(" ", 1)
    same(text, "answer to hello")
    # What accept(2) says is the real client.
    same(address[:2], (host.strip("[]"), int(own.rsplit(":", 1)[1])))


@check
def listener_published_is_reached_and_sees_the_client():
    with listening(SAME) as listener:
        served(listener, SAME)
        served(listener, SAME)


@check
def listener_published_under_another_port_is_reached():
    with listening(REMAPPED) as listener:
        served(listener, HOST["host_port"])
        closed_on_the_host(REMAPPED)


@check
def listener_bound_to_loopback_is_published_too():
    with listening(SAME, address=LOOPBACK4) as listener:
        served(listener, SAME)


@check
def listener_over_ipv6_is_reached():
    with listening(int(HOST["six"]), socket.AF_INET6) as listener:
        served(listener, HOST["six"], "[::1]")


@check
def listener_on_any_ipv6_is_reached_where_the_host_publishes_ipv4():
    with listening(SAME, socket.AF_INET6) as listener:
        said = dialed(SAME, "talk hello")
        serve_one(listener)
        same(said().split(" ", 1)[1], "answer to hello")


@check
def listener_not_published_is_reached_in_the_guest_only():
    with listening(7777) as listener:
        closed_on_the_host(7777)
        with socket.create_connection((LOOPBACK4, 7777)) as client:
            client.sendall(b"local")
            client.shutdown(socket.SHUT_WR)
            serve_one(listener)
            same(read_all(client), b"answer to local")


@check
def listener_on_port_0_is_reached_in_the_guest():
    with socket.socket() as listener:
        listener.bind((LOOPBACK4, 0))
        listener.listen()
        with socket.create_connection(listener.getsockname()) as client:
            client.shutdown(socket.SHUT_WR)
            serve_one(listener)
            same(read_all(client), b"answer to ")
        closed_on_the_host(listener.getsockname()[1])


@check
def listener_whose_host_port_is_taken_is_reached_in_the_guest():
    with listening(TAKEN) as listener, socket.create_connection((LOOPBACK4, TAKEN)) as client:
        client.shutdown(socket.SHUT_WR)
        serve_one(listener)
        same(read_all(client), b"answer to ")


@check
def published_listener_is_reached_from_the_guest_too():
    for port in (SAME, REMAPPED):
        with listening(port) as listener:
            served = background(serve_one, listener)
            with socket.create_connection((LOOPBACK4, port)) as client:
                client.sendall(b"near")
                client.shutdown(socket.SHUT_WR)
                same(read_all(client), b"answer to near")
            served()


@check
def accept_blocks_until_somebody_comes():
    with listening(SAME) as listener:
        served = background(serve_one, listener)
        time.sleep(0.5)
        same(dialed(SAME, "talk late")().split(" ", 1)[1], "answer to late")
        served()


@check
def accept_nonblocking_with_nobody_there_is_eagain():
    with listening(SAME) as listener:
        listener.setblocking(False)
        took = fastest(lambda: fails_with(errno.EAGAIN, listener.accept))
        assert took < 0.05, "it took %.3f s" % took


@check
def accept_after_poll_does_not_block():
    with listening(SAME) as listener:
        listener.setblocking(False)
        poll = select.poll()
        poll.register(listener, select.POLLIN)
        same(poll.poll(200), [], "what is ready")
        said = dialed(SAME, "talk polled")
        assert poll.poll(10_000), "the listener never becomes readable"
        stream, address = listener.accept()
        with stream:
            stream.setblocking(True)
            same(stream.getpeername(), address)
            stream.getsockname()
            stream.sendall(read_all(stream))
        own, text = said().split(" ", 1)
        same((own, text), ("%s:%d" % address, "polled"))
        fails_with(errno.EAGAIN, listener.accept)


@check
def two_accepts_at_once_get_one_connection_each():
    with listening(SAME) as listener:
        accepts = [background(serve_one, listener) for _ in range(2)]
        time.sleep(0.5)
        said = [dialed(SAME, "talk %d" % number) for number in range(2)]
        same(sorted(wait().split(" ", 1)[1] for wait in said), ["answer to 0", "answer to 1"])
        same(len({wait() for wait in accepts}), 2, "the number of clients")


@check
def accepts_of_forked_workers_serve_all():
    with listening(SAME) as listener:
        children = []
        for _ in range(3):
            child = os.fork()
            if child == 0:
                for _ in range(2):
                    serve_one(listener)
                os._exit(0)
            children.append(child)
        said = [dialed(SAME, "talk %d" % number) for number in range(6)]
        same(sorted(wait().split(" ", 1)[1] for wait in said), ["answer to %d" % number for number in range(6)])
        for child in children:
            same(os.waitpid(child, 0)[1], 0)


@check
def accept_interrupted_by_a_signal_can_be_called_again():
    with listening(SAME) as listener:
        signal.signal(signal.SIGUSR1, raise_interrupted)
        threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGUSR1)).start()
        fails_with(errno.EINTR, listener.accept)
        served(listener, SAME)


def raise_interrupted(*_):
    raise InterruptedError(errno.EINTR, "interrupted")


@check
def listener_closed_is_gone_from_the_host_and_can_come_back():
    for _ in range(3):
        with listening(SAME) as listener:
            served(listener, SAME)
        eventually(lambda: dialed(SAME)() == "errno %d" % errno.ECONNREFUSED, "the host's port stays open")


@check
def listener_of_a_killed_process_is_gone_from_the_host():
    child = os.fork()
    if child == 0:
        listener = listening(SAME)
        while True:
            listener.accept()[0].close()
    eventually(lambda: dialed(SAME)() == "connected", "the host's port never opens")
    time.sleep(0.3)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    eventually(lambda: dialed(SAME)() == "errno %d" % errno.ECONNREFUSED, "the host's port stays open")
    with listening(SAME) as listener:
        served(listener, SAME)


@check
def clients_that_wait_in_the_backlog_are_all_served():
    with listening(SAME) as listener:
        said = [dialed(SAME, "talk %d" % number) for number in range(40)]
        time.sleep(1)
        for _ in said:
            serve_one(listener)
        same(sorted(wait().split()[-1] for wait in said), sorted(str(number) for number in range(40)))


@check
def accepted_connection_carries_what_a_host_sent_and_closed():
    with listening(SAME) as listener:
        said = dialed(SAME, "send 150000")
        stream, _ = listener.accept()
        with stream:
            time.sleep(0.5)
            same(hashlib.sha256(read_all(stream)).hexdigest(), said())


@check
def accepted_connection_carries_2_mib_out():
    with listening(SAME) as listener:
        said, data = dialed(SAME, "read"), noise(2 << 20)
        stream, _ = listener.accept()
        with stream:
            stream.sendall(data)
        same(said(), summary(data))


@check
def python_http_server_is_reached_from_the_host():
    program = [sys.executable, "-ISBm", "http.server", "--directory", "/etc", str(REMAPPED)]
    with subprocess.Popen(program, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as server:
        said = ""

        def fetched():
            nonlocal said
            said = dialed(HOST["host_port"], "get /hosts")()
            return not said.startswith("errno")

        try:
            eventually(fetched, "the server never listens", 40)
        finally:
            server.kill()
    assert " 200 OK" in said and said.endswith("localhost\n"), said


@check
def nc_server_is_reached_from_the_host():
    with subprocess.Popen(["nc", "-l", "-p", str(SAME), "-e", "cat"]) as server:
        said = ""

        def fetched():
            nonlocal said
            said = dialed(SAME, "talk through nc")()
            return not said.startswith("errno")

        try:
            eventually(fetched, "the server never listens", 20)
        finally:
            server.kill()
    same(said.split(" ", 1)[1], "through nc")
