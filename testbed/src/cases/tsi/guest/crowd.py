# Very many connections, and connections that do nothing.
TICKS_A_SECOND = 100


# The device makes its timer when it first needs one.
def descriptors():
    return [target for target in answer("descriptors").splitlines() if target != "anon_inode:[timerfd]"]


# This one's connection counts too, so it is asked in the same way each time.
AT_FIRST = descriptors()


def nothing_left():
    try:
        eventually(lambda: len(descriptors()) <= len(AT_FIRST), "descriptors stay open")
    except AssertionError:
        raise AssertionError("descriptors stay open: %s" % sorted(set(descriptors()) - set(AT_FIRST)))


def exchange(number):
    with ask("echo") as stream:
        stream.sendall(b"%d" % number)
        stream.shutdown(socket.SHUT_WR)
        same(read_all(stream), b"%d" % number)


@check
def connections_2000_in_sequence_leave_nothing_open():
    for number in range(2000):
        exchange(number)
    nothing_left()


connections_2000_in_sequence_leave_nothing_open.patience = 300


@check
def connections_500_open_at_once_all_work_and_leave_nothing_open():
    streams = []
    for number in range(500):
        try:
            streams.append(ask("echo"))
        except OSError as error:
            raise AssertionError("connection %d failed: %s" % (number, error))
    for number, stream in enumerate(streams):
        stream.sendall(b"%d" % number)
    for number, stream in enumerate(streams):
        stream.shutdown(socket.SHUT_WR)
        same(read_all(stream), b"%d" % number)
        stream.close()
    nothing_left()


connections_500_open_at_once_all_work_and_leave_nothing_open.patience = 120


@check
def connections_of_20_threads_all_work():
    def some(first):
        for number in range(first, first + 15):
            exchange(number)

    for wait in [background(some, 1000 * thread) for thread in range(20)]:
        wait()
    nothing_left()


@check
def connections_that_fail_leave_nothing_open():
    for _ in range(200):
        fails_with(errno.ECONNREFUSED, socket.create_connection, (LOOPBACK4, 1))
    nothing_left()


@check
def worker_sleeps_while_100_busy_streams_are_not_read():
    streams = [ask("flood") for _ in range(100)]
    time.sleep(3)
    before, start = int(answer("ticks")), time.monotonic()
    time.sleep(3)
    used = (int(answer("ticks")) - before) / TICKS_A_SECOND / (time.monotonic() - start)
    assert used < 0.1, "the worker took %d %% of a processor" % (used * 100)
    for stream in streams:
        assert stream.recv(1 << 16)
        stream.close()
    nothing_left()


worker_sleeps_while_100_busy_streams_are_not_read.patience = 120


@check
def worker_sleeps_while_nothing_happens():
    before = int(answer("ticks"))
    time.sleep(2)
    used = int(answer("ticks")) - before
    assert used < 10, "the worker took %d ticks" % used
