"""What databases and editors do with files, in each of the folders that the arguments name."""

import fcntl
import mmap
import os
import sqlite3
import subprocess
import sys

WRITER = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1], timeout=600)
for number in range(10):
    with connection:
        connection.executemany("insert into numbers values (?)", [(n,) for n in range(20)])
"""


def databases(folder):
    """Two processes write at once: locks, syncs and, with a write-ahead log, a mapping that both share."""
    for journal in ["delete", "persist", "wal"]:
        path = f"{folder}/{journal}.db"
        connection = sqlite3.connect(path)
        assert connection.execute(f"pragma journal_mode={journal}").fetchone() == (journal,)
        connection.execute("create table numbers (number)")
        connection.commit()
        writers = [subprocess.Popen([sys.executable, "-IS", "-c", WRITER, path]) for _ in range(2)]
        assert [writer.wait() for writer in writers] == [0, 0]
        assert connection.execute("select count(*), sum(number) from numbers").fetchone() == (400, 3800)
        assert connection.execute("pragma integrity_check").fetchone() == ("ok",)
        connection.close()


def unnamed_files(folder):
    file = os.open(folder, os.O_TMPFILE | os.O_RDWR, 0o640)
    os.write(file, b"unnamed")
    assert os.fstat(file).st_nlink == 0
    descriptors = os.open("/proc/self/fd", os.O_RDONLY)
    os.link(str(file), f"{folder}/named", src_dir_fd=descriptors, follow_symlinks=True)
    assert open(f"{folder}/named", "rb").read() == b"unnamed"
    assert os.stat(f"{folder}/named").st_mode & 0o777 == 0o640
    os.unlink(f"{folder}/named")
    assert os.fstat(file).st_nlink == 0 and os.pread(file, 7, 0) == b"unnamed"


def mappings(folder):
    """What is written to a mapping is read from the file, and the other way round."""
    with open(f"{folder}/mapped", "w+b") as file:
        file.truncate(3 * mmap.PAGESIZE)
        first, second = mmap.mmap(file.fileno(), 0), mmap.mmap(file.fileno(), 0)
        first[5000:5005] = b"hello"
        assert second[5000:5005] == b"hello"
        first.flush()
        assert os.pread(file.fileno(), 5, 5000) == b"hello"
        os.pwrite(file.fileno(), b"HELLO", 5000)
        assert first[5000:5005] == b"HELLO"
        file.truncate(mmap.PAGESIZE)
        assert os.fstat(file.fileno()).st_size == mmap.PAGESIZE


def holes(folder):
    """Who reads sees them, unless the guest keeps what it likes; who may have mapped the file may hold what the host has not."""
    path = f"{folder}/holes"
    with open(path, "w+b", buffering=0) as file:
        file.truncate(1 << 20)
        os.pwrite(file.fileno(), b"x" * 4096, 1 << 19)
        assert os.lseek(file.fileno(), 0, os.SEEK_DATA) == 0
    with open(path, "rb", buffering=0) as file:
        found = os.lseek(file.fileno(), 0, os.SEEK_DATA), os.lseek(file.fileno(), 1 << 19, os.SEEK_HOLE)
        assert found == ((0, 1 << 20) if folder == "/always" else (1 << 19, (1 << 19) + 4096)), found
    with open(path, "r+b", buffering=0) as file:
        os.posix_fallocate(file.fileno(), 1 << 20, 4096)
        assert os.fstat(file.fileno()).st_size == (1 << 20) + 4096
        with open(f"{folder}/copy", "w+b", buffering=0) as copy:
            assert os.copy_file_range(file.fileno(), copy.fileno(), 8192, 1 << 19, 0) == 8192
            assert os.pread(copy.fileno(), 8192, 0) == b"x" * 4096 + bytes(4096)
            assert os.sendfile(copy.fileno(), file.fileno(), 1 << 19, 4096) == 4096


def locks(folder):
    """A lock of either kind keeps another process out, until it is given back."""
    attempt = "import fcntl, sys; fcntl.{}(open(sys.argv[1], 'r+'), fcntl.LOCK_EX | fcntl.LOCK_NB)"
    path = f"{folder}/locked"
    with open(path, "w") as file:
        for lock in ["flock", "lockf"]:
            process = [sys.executable, "-IS", "-c", attempt.format(lock), path]
            getattr(fcntl, lock)(file, fcntl.LOCK_EX)
            assert subprocess.run(process, stderr=subprocess.DEVNULL).returncode != 0
            getattr(fcntl, lock)(file, fcntl.LOCK_UN)
            assert subprocess.run(process).returncode == 0


def saved_as_editors_do(folder):
    path, times = f"{folder}/edited", (1_000_000_007, 2_000_000_000_123_456_789)
    for text in [b"first", b"second"]:
        with open(f"{path}.new", "wb", buffering=0) as file:
            file.write(text)
            os.fchmod(file.fileno(), 0o4711)
            os.fchown(file.fileno(), 12, 34)
            os.utime(file.fileno(), ns=times)
            os.fsync(file.fileno())
        os.rename(f"{path}.new", path)
        above = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        os.fsync(above)
        os.close(above)
    stat = os.stat(path)
    # A change of owner takes the set-ID bits away.
    assert (stat.st_mode & 0o7777, stat.st_uid, stat.st_gid) == (0o711, 12, 34), oct(stat.st_mode)
    assert (stat.st_atime_ns, stat.st_mtime_ns) == times
    assert open(path, "rb").read() == b"second"


def refusals_to_users(folder):
    """The guest's kernel keeps its users apart, with groups and sticky folders."""
    os.mkdir(f"{folder}/sticky")
    os.chmod(f"{folder}/sticky", 0o1777)
    open(f"{folder}/sticky/of root", "w").close()
    with open(f"{folder}/of a group", "w") as file:
        os.fchown(file.fileno(), 0, 50)
        os.fchmod(file.fileno(), 0o640)
    if os.fork() == 0:
        os.setgroups([50])
        os.setresuid(1000, 1000, 1000)
        open(f"{folder}/of a group").close()
        open(f"{folder}/sticky/of a user", "w").close()
        status = 0
        for attempt in [
            lambda: open(f"{folder}/of a group", "r+"),
            lambda: os.unlink(f"{folder}/sticky/of root"),
            lambda: os.chmod(f"{folder}/of a group", 0o666),
            lambda: os.rename(f"{folder}/sticky/of root", f"{folder}/sticky/taken"),
        ]:
            try:
                attempt()
                status = 1
            except PermissionError:
                pass
        os._exit(status)
    assert os.wait()[1] == 0
    assert os.stat(f"{folder}/sticky/of a user").st_uid == 1000


for folder in sys.argv[1:]:
    os.chmod(folder, 0o755)
    for check in [databases, unnamed_files, mappings, holes, locks, saved_as_editors_do, refusals_to_users]:
        check(folder)
    print("sound", flush=True)
