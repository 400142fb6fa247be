# The guest's datagrams to the host, and the host's answers.
HOST4, HOST6 = (LOOPBACK4, int(HOST["udp"])), (LOOPBACK6, int(HOST["udp"]))


def datagrams(family=socket.AF_INET):
    stream = socket.socket(family, socket.SOCK_DGRAM)
    stream.settimeout(10)
    return stream


def nothing_comes(stream, seconds=0.5):
    stream.settimeout(seconds)
    try:
        found = stream.recv(1 << 16)
    except TimeoutError:
        stream.settimeout(10)
    else:
        raise AssertionError("%d bytes came" % len(found))


def replies_of_all_sizes(stream, say):
    for count in (0, 1, 4, 1472, 3732):
        say(b"reply %d" % count)
        same(len(stream.recv(1 << 16)), count)


@check
def udp_over_ipv4_is_answered():
    with datagrams() as stream:
        stream.sendto(b"hello", HOST4)
        data, address = stream.recvfrom(100)
        same((data, address), (b"hello", HOST4))


@check
def udp_over_ipv6_is_answered():
    with datagrams(socket.AF_INET6) as stream:
        stream.sendto(b"hello", HOST6)
        data, address = stream.recvfrom(100)
        same((data, address[:2]), (b"hello", HOST6))


@check
def udp_replies_of_0_to_3732_bytes_arrive_whole():
    with datagrams() as stream:
        replies_of_all_sizes(stream, lambda text: stream.sendto(text, HOST4))


@check
def udp_reply_of_3733_bytes_is_dropped_whole():
    with datagrams() as stream:
        for count in (3733, 9000):
            stream.sendto(b"reply %d" % count, HOST4)
            nothing_comes(stream)
        stream.sendto(b"reply 4", HOST4)
        same(len(stream.recv(1 << 16)), 4)


@check
def udp_sends_of_all_sizes_arrive():
    with datagrams() as stream:
        for count in (0, 1, 3732):
            stream.sendto(b"x" * count, HOST4)
            same(stream.recv(1 << 16), b"x" * count)
        # Longer ones than the guest can be sent arrive at the host all the same.
        for count in (3800, 32500, 60000):
            stream.sendto(b"note %d " % count + b"x" * count, HOST4)
            same(answer("note %d" % count), "x" * count)


@check
def udp_datagram_of_a_stranger_is_not_delivered():
    with datagrams() as stream:
        stream.sendto(b"stranger", HOST4)
        nothing_comes(stream)
        stream.sendto(b"hello", HOST4)
        same(stream.recv(100), b"hello")


@check
def udp_socket_sends_to_two_destinations():
    with datagrams() as stream:
        for number in range(20):
            stream.sendto(b"a%d" % number, HOST4)
            stream.sendto(b"b%d" % number, (LOOPBACK4, int(HOST["udp2"])))
        wanted = sorted(b"%s%d" % (letter, number) for letter in (b"a", b"b") for number in range(20))
        same(sorted(stream.recv(100) for _ in wanted), wanted)


@check
def udp_destination_that_the_policy_denies_gets_nothing():
    with datagrams() as stream:
        stream.sendto(b"reply 4", (LOOPBACK4, int(HOST["denied"])))
        nothing_comes(stream)
        stream.sendto(b"reply 4", HOST4)
        same(len(stream.recv(100)), 4)


@check
def udp_connected_over_the_device_is_answered():
    with datagrams() as stream:
        stream.connect((HOST["outer"], int(HOST["outer_udp"])))
        replies_of_all_sizes(stream, stream.send)
        same(stream.getpeername(), (HOST["outer"], int(HOST["outer_udp"])))
        stream.send(b"stranger")
        nothing_comes(stream)
        stream.send(b"")
        same(stream.recv(100), b"")


@check
def udp_connected_to_a_closed_port_survives():
    with datagrams() as stream:
        stream.connect((HOST["outer"], 9))
        for _ in range(5):
            stream.send(b"x")
            time.sleep(0.05)


@check
def udp_connected_to_what_the_policy_denies_is_eacces():
    with datagrams() as stream:
        fails_with(errno.EACCES, stream.connect, ("169.254.169.254", 53))


@check
def udp_within_the_guest_stays_there():
    # Without time limits: this kernel's poll(2) makes a datagram socket the host's for good.
    with socket.socket(type=socket.SOCK_DGRAM) as server, socket.socket(type=socket.SOCK_DGRAM) as client:
        server.bind((LOOPBACK4, 0))
        client.sendto(b"local", server.getsockname())
        data, address = server.recvfrom(100)
        server.sendto(data + b" answer", address)
        same(client.recv(100), b"local answer")


@check
def udp_poll_tells_of_an_answer():
    with datagrams() as stream:
        stream.sendto(b"hello", HOST4)
        assert select.select([stream], [], [], 10)[0], "it never becomes readable"
        same(stream.recv(100), b"hello")
        same(select.select([stream], [], [], 0.2)[0], [])


@check
def udp_500_exchanges_and_200_sockets_all_work():
    with datagrams() as stream:
        for number in range(500):
            stream.sendto(b"%d" % number, HOST4)
            same(stream.recv(100), b"%d" % number)
    for number in range(200):
        with datagrams() as stream:
            stream.sendto(b"%d" % number, HOST4)
            same(stream.recv(100), b"%d" % number)
