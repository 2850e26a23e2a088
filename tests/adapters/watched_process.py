"""Imports, wraps and runs the agents of a framework; notes every address looked up or connected to.

python watched_process.py FRAMEWORK NOTES_FILE
"""

import asyncio
import socket
import sys
import urllib.request
from pathlib import Path

LOOPBACK = {"127.0.0.1", "::1", "localhost"}
NOTES = Path(sys.argv[2])


def watch(event, arguments):
    if event == "socket.getaddrinfo":
        host = arguments[0]
    elif event in ("socket.connect", "socket.sendto", "socket.sendmsg"):
        host = arguments[1][0] if isinstance(arguments[1], tuple) else None  # a path: this machine
    elif event in ("socket.gethostbyname", "socket.gethostbyaddr"):
        host = arguments[0]
    else:
        return
    host = host.decode() if isinstance(host, bytes) else host
    if host is not None and host not in LOOPBACK:
        with NOTES.open("a") as notes:
            notes.write(f"{event} {host}\n")
        raise ConnectionRefusedError(f"this test lets nobody talk to {host}")


def shout(word: str) -> str:
    """Says a word loudly."""
    return word.upper()


async def run_everything(framework):
    from kits.every import kit_of

    from raybolt.adapters.check import ModelServer, ScriptedPolicy, call
    from raybolt.adapters.check.drive import play

    kit = kit_of(framework)
    for way in kit.ways:
        await play(kit.wrap(kit.two_roles(way)), ScriptedPolicy("It rains.", "Too wet."))
        asking = ScriptedPolicy(call(("shout", {"word": "rain"})), "RAIN")
        ran = await play(kit.wrap(kit.with_tools(way, [shout])), asking)
        assert "RAIN" in kit.text(ran.result)
    with ModelServer().serving() as server:
        agent = kit.wrap(kit.own_agent(server.url), trainable=["writer"])
        ran = await play(agent, ScriptedPolicy("It rains."))
        assert "own reply 1" in kit.text(ran.result)


if __name__ == "__main__":
    NOTES.touch()
    sys.addaudithook(watch)
    if sys.argv[1] == "nosy":
        try:
            urllib.request.urlopen("http://raybolt.example", timeout=1)
        except OSError:
            socket.socket(socket.AF_INET, socket.SOCK_DGRAM).connect(("127.0.0.1", 9))
    else:
        asyncio.run(run_everything(sys.argv[1]))
