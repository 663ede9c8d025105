"""The laboratory of hosts: links count, limit, delay and can be cut, and nothing of it stays."""

import os
import re
import signal
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parents[1] / "benchmarks"))

from netlab import SKIPPED, Lab, LabError, main, run, why_not

pytestmark = pytest.mark.skipif(bool(reason := why_not()), reason=f"no laboratory here: {reason}")

SCRIPT = Path(__file__).parents[1] / "scripts" / "netlab"
MEGABYTE = 1_000_000
PORT = 5000
TAKE = f"""
import socket
with socket.create_server(("", {PORT})) as server:
    print("ready", flush=True)
    with server.accept()[0] as peer:
        while peer.recv(1 << 16): pass
        peer.sendall(b"all")
"""
GIVE = f"""
import socket, sys
with socket.create_connection((sys.argv[1], {PORT})) as peer:
    peer.sendall(bytes(int(sys.argv[2])))
    peer.shutdown(socket.SHUT_WR)
    assert peer.recv(3) == b"all"
"""
KNOCK = f"""
import socket, sys
try:
    socket.create_connection((sys.argv[1], {PORT}), 0.3)
except OSError:
    sys.exit(3)
"""
RANK = """
import os, torch, torch.distributed as dist
dist.init_process_group("gloo")
rank = dist.get_rank()
mine, theirs = torch.full((1000,), rank), torch.empty(1000, dtype=torch.int64)
requests = [dist.isend(mine, 1 - rank), dist.irecv(theirs, 1 - rank)]
for request in requests: request.wait()
print("rank", rank, "of", dist.get_world_size(), "received", int(theirs.sum()))
dist.destroy_process_group()
"""


def python(program, *arguments):
    return [sys.executable, "-c", program, *map(str, arguments)]


def transfer(lab, n_bytes, giver=0, taker=1):
    """Seconds that a transfer took from its giver's start to its end."""
    with lab.popen(taker, python(TAKE), stdout=subprocess.PIPE) as server:
        assert server.stdout.readline() == b"ready\n"
        began = time.monotonic()
        give = python(GIVE, lab.address(taker), n_bytes)
        assert lab.popen(giver, give).wait() == 0
        return time.monotonic() - began


def status(lab, host, program, *arguments):
    return lab.popen(host, python(program, *arguments)).wait()


def namespaces(pid):
    return [name for name in os.listdir("/run/netns") if f"netlab-{pid}-" in name]


@pytest.mark.parametrize("hosts", [2, 3])
def test_what_a_cable_carries_is_counted(hosts):
    with Lab(hosts) as lab:
        transfer(lab, MEGABYTE, giver=hosts - 1, taker=0)
        sent, received = lab.bytes_sent(hosts - 1), lab.bytes_received(0)
        once = sent - lab.bytes_sent_again(hosts - 1)  # a machine that stalls makes TCP repeat
        counts = f"sent {sent}, of them once {once}, received {received}"
        # 66 bytes of headers on every 1448; 54 on every 1460 where TCP has no timestamps
        assert sent > MEGABYTE * 1.03, counts
        assert once < MEGABYTE * 1.07, counts
        assert once <= received < sent * 1.01, counts  # a bridge sends a little of its own
        assert lab.bytes_sent(0) < MEGABYTE / 10


def test_a_rate_is_a_limit():
    with Lab() as lab:
        free = transfer(lab, 2 * MEGABYTE)
    with Lab(rate="10mbit") as lab:
        assert transfer(lab, 2 * MEGABYTE) > max(1.0, 2 * free)


def test_a_delay_is_paid_on_the_way_and_on_the_way_back():
    with Lab(delay="200ms") as lab:
        assert transfer(lab, 1) > 3 * 0.2  # the connection, and the answer's way back


@pytest.mark.parametrize("hosts", [2, 3])
def test_a_cut_link_carries_nothing_until_it_is_mended(hosts):
    with Lab(hosts) as lab, lab.popen(0, python(TAKE), stdout=subprocess.PIPE) as server:
        server.stdout.readline()
        lab.cut(1)
        assert status(lab, 1, KNOCK, lab.address(0)) == 3
        lab.mend(1)
        assert status(lab, 1, GIVE, lab.address(0), 1) == 0


def test_a_host_has_a_loopback():
    own = "import socket\nwith socket.create_server(('127.0.0.1', 0)) as s:\n"
    own += "    socket.create_connection(s.getsockname()).close()"
    with Lab() as lab:
        assert status(lab, 0, own) == 0


def test_an_exception_leaves_nothing():
    orphan = "import os, time\nif os.fork(): os._exit(0)\nprint(os.getpid(), flush=True)\n"
    with ExitStack() as pipes, pytest.raises(KeyboardInterrupt), Lab(3) as lab:  # noqa: PT012
        parent = lab.popen(1, python(orphan + "time.sleep(60)"), stdout=subprocess.PIPE)
        pid = int(pipes.enter_context(parent.stdout).readline())
        assert len(namespaces(os.getpid())) == 4
        raise KeyboardInterrupt
    assert not namespaces(os.getpid())
    assert not Path(f"/proc/{pid}").exists() or "Z" in Path(f"/proc/{pid}/stat").read_text()


def test_a_laboratory_that_cannot_be_built_leaves_nothing():
    with pytest.raises(LabError, match="quick"), Lab(rate="quick"):
        pass
    assert not namespaces(os.getpid())


@pytest.mark.usefixtures("ctrl_c")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_command_leaves_nothing(number):
    argv = [sys.executable, SCRIPT, "--delay", "1ms", "--", "sh", "-c", "echo up; exec sleep 60"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    with subprocess.Popen(argv, start_new_session=True, **pipes) as script:
        assert script.stdout.readline().endswith(b"up\n")
        assert len(namespaces(script.pid)) == 3
        script.send_signal(number)
    assert script.returncode
    assert not namespaces(script.pid)


@pytest.mark.parametrize("wish", [{"hosts": 0}, {"hosts": 300}, {"delay": "20"}])
def test_a_laboratory_is_told_what_is_wrong(wish):
    with pytest.raises(ValueError, match=f"got {next(iter(wish.values()))!r}"):
        Lab(**wish)


def test_two_laboratories_do_not_meet():
    with Lab() as one, Lab() as other:
        transfer(one, MEGABYTE)
        assert other.bytes_received(1) < 1000
        assert "eth0" in run("ip", "-n", other._hosts[0], "link", "show")


def test_ranks_of_gloo_work_across_it(capfd):
    pytest.importorskip("torch")
    assert main(["--", *python(RANK)]) == 0
    printed = capfd.readouterr().out
    assert "[host 0] rank 0 of 2 received 1000\n" in printed
    assert "[host 1] rank 1 of 2 received 0\n" in printed
    assert len(re.findall(r"\[host \d\] sent [\d,]+ bytes, received [\d,]+\n", printed)) == 2


def test_the_first_failure_is_the_exit_status():
    assert main(["--hosts", "3", "--", "sh", "-c", "exit $((RANK * 4))"]) == 4


def test_it_is_skipped_where_there_is_no_ip(tmp_path):
    nowhere = {"PATH": str(tmp_path)}
    script = [sys.executable, SCRIPT, "--", "true"]
    done = subprocess.run(script, env=nowhere, capture_output=True, text=True, check=False)
    assert done.returncode == SKIPPED
    assert "needs ip and tc" in done.stderr
