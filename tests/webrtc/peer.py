"""A WebRTC peer (aiortc) for the end-to-end tests: it offers audio, says a tone, and tells how much of what it hears is that tone.

    peer.py ADDRESS...

It has these addresses and no others. It speaks JSON, an object a line: first it writes {"offer": SDP}, then it reads {"answer": SDP}, and from
then on writes {"state": ...} for each state of its connection, and {"tone": share, "level": loudness} twice a second, both from 0 to 1.
It ends with its input.
"""

import array
import asyncio
import fractions
import json
import sys

import aioice.ice
from aiortc import MediaStreamTrack, RTCConfiguration, RTCPeerConnection, RTCSessionDescription
from av import AudioFrame
from sound import judge, tone

RATE = 48_000
FRAME = RATE // 50


def tell(**what):
    print(json.dumps(what), flush=True)


class Tone(MediaStreamTrack):
    kind = "audio"

    def __init__(self):
        super().__init__()
        self.sent = 0
        self.begun = None

    async def recv(self):
        loop = asyncio.get_running_loop()
        if self.begun is None:
            self.begun = loop.time()
        await asyncio.sleep(max(0, self.begun + self.sent / RATE - loop.time()))
        frame = AudioFrame(format="s16", layout="mono", samples=FRAME)
        frame.planes[0].update(array.array("h", tone(self.sent, FRAME, RATE)).tobytes())
        frame.sample_rate = RATE
        frame.pts = self.sent
        frame.time_base = fractions.Fraction(1, RATE)
        self.sent += FRAME
        return frame


async def listen(track):
    heard = array.array("h")
    while True:
        frame = await track.recv()
        channels = len(frame.layout.channels)
        samples = array.array("h", bytes(frame.planes[0]))[: frame.samples * channels]
        heard.extend(samples[::channels])
        if len(heard) >= frame.sample_rate // 2:
            share, level = judge(heard, frame.sample_rate)
            tell(tone=round(share, 4), level=round(level, 4))
            heard = array.array("h")


async def main(addresses):
    # Nothing leaves the machine, and the loopback interface, which aioice passes over, is all there is.
    aioice.ice.get_host_addresses = lambda use_ipv4, use_ipv6: addresses
    peer = RTCPeerConnection(RTCConfiguration(iceServers=[]))
    listening = []

    @peer.on("connectionstatechange")
    def state():
        tell(state=peer.connectionState)

    @peer.on("track")
    def track(track):
        listening.append(asyncio.ensure_future(listen(track)))

    peer.addTrack(Tone())
    await peer.setLocalDescription(await peer.createOffer())
    tell(offer=peer.localDescription.sdp)
    loop = asyncio.get_running_loop()
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        answer = json.loads(line)["answer"]
        await peer.setRemoteDescription(RTCSessionDescription(sdp=answer, type="answer"))
    for task in listening:
        task.cancel()
    await peer.close()


asyncio.run(main(sys.argv[1:]))
