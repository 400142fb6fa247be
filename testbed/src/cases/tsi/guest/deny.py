# A guest whose policy is the default.


@check
def host_loopback_is_denied_by_default():
    # As if nobody listened: programs that wait for a server of their own know no other error.
    for address in [LOOPBACK4, LOOPBACK6, "127.1.2.3", "::ffff:127.0.0.1"]:
        fails_with(errno.ECONNREFUSED, socket.create_connection, (address, int(HOST["port"])))


@check
def host_unspecified_address_is_denied_by_default():
    fails_with(errno.ECONNREFUSED, socket.create_connection, ("0.0.0.0", int(HOST["port"])))


@check
def link_local_and_metadata_addresses_are_denied_by_default():
    fails_with(errno.EACCES, socket.create_connection, ("169.254.169.254", 80))


@check
def host_loopback_gets_no_datagram_by_default():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stream:
        stream.settimeout(0.5)
        stream.sendto(b"reply 4", (LOOPBACK4, int(HOST["udp"])))
        try:
            stream.recv(10)
        except TimeoutError:
            return
    raise AssertionError("it was answered")


@check
def guest_loopback_is_the_guests_all_the_same():
    with socket.socket() as listener:
        listener.bind((LOOPBACK4, 0))
        listener.listen()
        socket.create_connection(listener.getsockname()).close()
