# What all checks use. Runs in the guest; the other side is described in ../peer.rs and ../datagrams.rs.
import errno, hashlib, os, select, signal, socket, struct, sys, threading, time, traceback

HOST = dict(word.split("=", 1) for word in sys.argv[1:])
LOOPBACK4, LOOPBACK6 = "127.0.0.1", "::1"
# When a check counts as hung.
PATIENCE = 40
CHECKS = []


def check(function):
    """A check, by its name. One that takes long says so by a `patience` of its own."""
    CHECKS.append(function)
    return function


def run_checks(end):
    signal.signal(signal.SIGALRM, hung)
    for function in CHECKS:
        name, start = function.__name__, time.monotonic()
        signal.alarm(getattr(function, "patience", PATIENCE))
        try:
            function()
            verdict, reason = "ok", ""
        except BaseException as error:
            verdict, reason = "FAILED", ": %s: %s" % (type(error).__name__, " ".join(str(error).split()))
            traceback.print_exc()
        signal.alarm(0)
        print("check: %s %s%s (%.2f s)" % (verdict, name, reason, time.monotonic() - start), flush=True)
    print(end, flush=True)
    # Threads that a failed check left behind must not keep the guest.
    os._exit(0)


def hung(*_):
    raise TimeoutError("not done in time")


def same(found, wanted, what="it"):
    assert found == wanted, "%s is %r and should be %r" % (what, found, wanted)


def fails_with(number, function, *arguments):
    try:
        found = function(*arguments)
    except OSError as error:
        same(errno.errorcode.get(error.errno, error), errno.errorcode[number], "the error")
    else:
        raise AssertionError("it succeeded with %r and should fail with %s" % (found, errno.errorcode[number]))


def eventually(condition, what, seconds=10):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, what
        time.sleep(0.05)


def connected():
    """A connection to the host's peer; scripts that have none by TCP make it differently."""
    return socket.create_connection((LOOPBACK4, int(HOST["port"])))


def ask(line, connect=None):
    """A connection that the host has been told what to make of."""
    stream = (connect or connected)()
    stream.sendall(line.encode() + b"\n")
    return stream


def answer(line, connect=None):
    with ask(line, connect) as stream:
        return read_all(stream).decode()


def read_all(stream):
    pieces = []
    while piece := stream.recv(1 << 16):
        pieces.append(piece)
    return b"".join(pieces)


def read_line(stream):
    line = b""
    while not line.endswith(b"\n"):
        byte = stream.recv(1)
        assert byte, "the connection ended after %r" % line
        line += byte
    return line.decode().strip()


def summary(data):
    return "%d %s" % (len(data), hashlib.sha256(data).hexdigest())


def noise(count):
    return os.urandom(count)


def background(function, *arguments):
    """Runs something at the same time; calling what this returns waits for it and gives its result."""
    outcome = []

    def run():
        try:
            outcome.append((function(*arguments), None))
        except BaseException as error:
            outcome.append((None, error))

    thread = threading.Thread(target=run, daemon=True)
    thread.start()

    def wait():
        thread.join(PATIENCE)
        assert outcome, "%s did not come to an end" % function.__name__
        result, error = outcome[0]
        if error:
            raise error
        return result

    return wait


# What holds for a stream socket whatever carries it. `connect` makes a connection to the host's peer.


def echoes(connect):
    with ask("echo", connect) as stream:
        data = noise(100_000)
        sent = background(stream.sendall, data)
        received = b""
        while len(received) < len(data):
            # This kernel's recv(2) holds the lock of a TSI socket while it waits, so that the writer could not go on.
            select.select([stream], [], [])
            piece = stream.recv(1 << 16)
            assert piece, "the connection ended after %d bytes" % len(received)
            received += piece
        sent()
        same(summary(received), summary(data))


def carries_writes(connect, key, count, piece):
    """The guest writes and the host reads freely."""
    data = noise(count)
    with ask("sink " + key, connect) as stream:
        for start in range(0, count, piece):
            written = stream.send(data[start : start + piece])
            same(written, len(data[start : start + piece]), "what one write took")
        stream.shutdown(socket.SHUT_WR)
        same(read_all(stream).decode(), summary(data))


def carries_host_writes(connect, count, piece, pause=0):
    """The host writes and closes at once; the guest reads, after a pause."""
    with ask("send %d %d" % (count, piece), connect) as stream:
        wanted = read_line(stream)
        time.sleep(pause)
        data = read_all(stream)
        same(summary(data), "%d %s" % (count, wanted))


def half_closed_by_guest(connect, key):
    with ask("sink " + key, connect) as stream:
        stream.sendall(b"x" * 1000)
        stream.shutdown(socket.SHUT_WR)
        same(read_all(stream).decode(), summary(b"x" * 1000))


def half_closed_by_host(connect, key):
    data = noise(200_000)
    with ask("bye " + key, connect) as stream:
        same(read_all(stream), b"bye\n")
        time.sleep(0.2)
        stream.sendall(data)
    same(answer("note " + key, connect), summary(data))


def slow_host_gets_all(connect, key, count):
    """A stalled reader holds up nobody else, and gets everything in the end."""
    data = noise(count)
    with ask("stall " + key, connect) as stream:
        sent = background(stream.sendall, data)
        time.sleep(1)
        start = time.monotonic()
        for _ in range(5):
            echoes(connect)
        assert time.monotonic() - start < 10, "others were held up"
        ask("go " + key, connect).close()
        sent()
        stream.shutdown(socket.SHUT_WR)
        same(read_all(stream).decode(), summary(data))


def slow_guest_gets_all(connect, count, piece):
    with ask("send %d %d" % (count, piece), connect) as stream:
        wanted, hashed, received = read_line(stream), hashlib.sha256(), 0
        while data := stream.recv(1 << 16):
            hashed.update(data)
            received += len(data)
            time.sleep(0.01)
        same("%d %s" % (received, hashed.hexdigest()), "%d %s" % (count, wanted))


def fastest(function, times=5):
    """The least of some durations in seconds: this machine does other things too."""
    durations = []
    for _ in range(times):
        start = time.monotonic()
        function()
        durations.append(time.monotonic() - start)
    return min(durations)
