"""Runs docs/first-hour.md word by word, between two sealed hosts, and compares what it prints: first_hour.py MITOSIS HOSTS

MITOSIS is the program, HOSTS is mitosis-hosts. Needs root. What it stands in for is the copy of the secret to the other host.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs/first-hour.md"
BLOCK_SECONDS = 120
# What commands of the page use on host-b, which has nothing but what it is given.
ON_B = ("bash", "grep", "sleep")


def blocks(text: str) -> list[tuple[str, str]]:
    """Kind and text of each fenced block."""
    return re.findall(r"^```(\w+)\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)


def as_pattern(expected: str) -> str:
    """What an output has to be: `...` is anything."""
    parts = (re.escape(part.strip("\n")) for part in expected.split("..."))
    return r"[\s\S]*".join(parts)


def main() -> None:
    """Run the page."""
    mitosis, program = (str(Path(path).resolve()) for path in sys.argv[1:3])
    with tempfile.TemporaryDirectory(prefix="mitosis-first-hour-") as folder:
        tools = [tool for name in ON_B if (tool := shutil.which(name))]
        files = [part for tool in tools for part in ("--file", tool)]
        up = subprocess.Popen(
            [program, "up", "--owner", str(os.getpid()), "--file", f"{mitosis}:/usr/bin/mitosis", *files],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        with up:
            hosts = {host["name"]: host for host in json.loads(up.stdout.readline())["hosts"]}
            try:
                follow(program, hosts, folder, mitosis)
            finally:
                up.stdin.close()


def follow(program: str, hosts: dict[str, dict], folder: str, mitosis: str) -> None:
    """Do what the page says."""
    binaries = Path(folder, "bin")
    binaries.mkdir()
    (binaries / "mitosis").symlink_to(mitosis)
    path = f"{binaries}:{Path(sys.executable).parent}:{os.environ['PATH']}"
    work = Path(folder, "work")
    work.mkdir()
    sent = Path(folder, "sent")
    sent.mkdir()
    begin = {
        # The other host has no ssh.
        "host-a": f'cd {work}; export PATH={path} MITOSIS={ROOT}; scp() {{ cp "$1" "$2" {sent}/"${{3#host-b:}}"; }}',
        "host-b": "cd /run",
    }
    printed, ran = None, 0
    for kind, text in blocks(PAGE.read_text()):
        first, _, rest = text.partition("\n")
        where = first.removeprefix("//").removeprefix("#").strip()
        if kind in ("python", "js"):
            (work / where).write_text(rest)
        elif kind == "text":
            assert printed is not None, f"nothing was printed that could be\n{text}"
            if not re.fullmatch(as_pattern(text), printed.strip("\n")):
                sys.exit(f"--- the page says\n{text}--- and it was\n{printed}")
            printed = None
        elif kind == "sh" and where in begin:
            host = hosts[where]
            command = [program, "exec", "--pid", str(host["init_pid"]), "--", "bash", "-euc"]
            for file in sent.iterdir():
                shutil.copy2(file, Path(hosts["host-b"]["root"], "run"))
            done = run([*command, f"{begin[where]}\n{rest}"], Path(folder, "printed"))
            printed, ran = done.stdout, ran + 1
            print(f"--- on {where}\n{rest}{printed}", flush=True)
            if done.returncode != 0:
                sys.exit(f"that ended with {done.returncode}")
        elif where != "bare machine":
            sys.exit(f"a block of '{kind}' begins with '{first}': name a host, or a file")
    print(f"{ran} blocks were run as they stand")


def run(command: list[str], output: Path) -> subprocess.CompletedProcess[str]:
    """To the end of the shell; what it leaves in the background runs on, and may keep its output open."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("MITOSIS_", "PYTHON"))}
    with output.open("w") as file:
        done = subprocess.run(
            command,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            timeout=BLOCK_SECONDS,
            check=False,
        )
    return subprocess.CompletedProcess(command, done.returncode, output.read_text())


main()
