"""A peer with DTLS-SRTP and without ICE for the end-to-end tests, made of OpenSSL and libsrtp: what aiortc and rtpengine cannot be told to do.

    handshake.py OPTIONS

OPTIONS is a JSON object:
    address      where its ports 4000 and 4001 are
    setup        what its offer says: active, passive or actpass
    key          of its certificate: ec or rsa
    mux          whether it offers rtcp-mux; without, and with reports, there is a handshake on each port (RFC 5764 section 4.2)
    reports      what it does on its port for reports where there is no rtcp-mux: "shake", "clear" (reports without encryption), "none"
    fingerprint  own or wrong
    late         seconds from the answer until its ports are there
    loses        how many of a hundred datagrams of the handshake are lost, either way; the same ones for the same seed
    seed         of that
    mtu          bytes of its datagrams

It speaks JSON, an object a line: first it writes {"offer": SDP}, then it reads {"answer": SDP}, and from then on writes {"state": "connected"} or
"failed" for the handshake of its sound, and twice a second {"tone": share, "level": loudness, "packets": how many were heard, "reports":
how many could be read, "bad": how many datagrams were neither, "reports_state": as state, "hellos": ClientHellos that have come}. It ends with its input.
"""

import asyncio
import datetime
import hashlib
import json
import random
import re
import socket
import struct
import sys

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from OpenSSL import SSL, crypto
from pylibsrtp import Error as SrtpError
from pylibsrtp import Policy, Session
from sound import judge, tone

RATE = 8_000
FRAME = RATE // 50
SSRC = 0x5EED
NTP = 2_208_988_800


def tell(**what):
    print(json.dumps(what), flush=True)


def encode(sample):
    """G.711 µ-law (ITU-T G.711 table 2)."""
    sign = 0x80 if sample < 0 else 0
    size = min(abs(sample), 32_635) + 132
    exponent = size.bit_length() - 8
    return ~(sign | exponent << 4 | (size >> (exponent + 3)) & 15) & 0xFF


def decode(code):
    code = ~code & 0xFF
    size = (((code & 15) << 3) + 132 << (code >> 4 & 7)) - 132
    return -size if code & 0x80 else size


def certificate(kind):
    if kind == "rsa":
        key = rsa.generate_private_key(public_exponent=65_537, key_size=2048)
    else:
        key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "peer")])
    now = datetime.datetime.now(datetime.timezone.utc)
    day = datetime.timedelta(days=1)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - day)
        .not_valid_after(now + day)
        .sign(key, hashes.SHA256())
    )
    return key, made


class Association:
    """A handshake on one port, and its keys."""

    def __init__(self, peer, begins):
        self.peer = peer
        self.begins = begins
        self.state = "new"
        self.socket = None
        self.sending = self.receiving = None
        context = SSL.Context(SSL.DTLS_METHOD)
        context.set_verify(SSL.VERIFY_PEER | SSL.VERIFY_FAIL_IF_NO_PEER_CERT, lambda *_: True)
        context.use_certificate(crypto.X509.from_cryptography(peer.certificate))
        context.use_privatekey(crypto.PKey.from_cryptography_key(peer.key))
        context.set_tlsext_use_srtp(b"SRTP_AES128_CM_SHA1_80")
        self.tls = SSL.Connection(context)
        self.tls.set_ciphertext_mtu(peer.options["mtu"])
        if begins:
            self.tls.set_connect_state()
        else:
            self.tls.set_accept_state()

    def open(self, port):
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.bind((self.peer.address, port))
        self.socket.setblocking(False)
        asyncio.get_running_loop().add_reader(self.socket, self.read)

    def read(self):
        while True:
            try:
                datagram, source = self.socket.recvfrom(2048)
            except BlockingIOError:
                return
            first = datagram[0] if datagram else 0
            if 20 <= first <= 63:
                # A handshake message in the clear: its type is the byte behind the record's header.
                self.peer.hellos += len(datagram) > 13 and first == 22 and datagram[3:5] == b"\0\0" and datagram[13] == 1
                if self.state in ("new", "connected") and not self.peer.loses():
                    self.tls.bio_write(datagram)
                    self.go_on()
            elif 128 <= first <= 191:
                self.peer.heard(self, datagram)

    def send(self, datagram, to):
        self.socket.sendto(datagram, to)

    def to(self):
        return self.peer.remote if self is self.peer.sound else self.peer.remote_reports

    def flush(self):
        """A record a datagram: OpenSSL gives all that is to be sent as one."""
        try:
            waiting = self.tls.bio_read(65_536)
        except SSL.WantReadError:
            return
        while waiting:
            length = 13 + struct.unpack("!H", waiting[11:13])[0]
            if not self.peer.loses():
                self.send(waiting[:length], self.to())
            waiting = waiting[length:]

    def go_on(self):
        if self.state == "connected":
            # The peer may have missed the end of it.
            try:
                self.tls.recv(2048)
            except SSL.Error:
                pass
            return self.flush()
        try:
            self.tls.do_handshake()
        except SSL.WantReadError:
            return self.flush()
        except SSL.Error as error:
            self.flush()
            self.state = "failed"
            return self.changed(str(error))
        self.flush()
        told = hashlib.sha256(self.tls.get_peer_certificate().to_cryptography().public_bytes(serialization.Encoding.DER))
        if told.hexdigest() != self.peer.remote_fingerprint:
            self.state = "failed"
            return self.changed("another certificate than the answer's")
        material = self.tls.export_keying_material(b"EXTRACTOR-dtls_srtp", 60)
        client, server = (material[at : at + 16] + material[32 + salt : 46 + salt] for at, salt in ((0, 0), (16, 14)))
        ours, theirs = (client, server) if self.begins else (server, client)
        self.sending = Session(Policy(key=ours, ssrc_type=Policy.SSRC_ANY_OUTBOUND))
        self.receiving = Session(Policy(key=theirs, ssrc_type=Policy.SSRC_ANY_INBOUND))
        self.state = "connected"
        self.changed("")

    def changed(self, detail):
        if self is self.peer.sound:
            tell(state=self.state, detail=detail)

    async def run(self):
        """Begins, and says again what was not answered."""
        if self.begins:
            self.go_on()
        while self.state == "new":
            await asyncio.sleep(0.1)
            left = self.tls.DTLSv1_get_timeout()
            if left is not None and left <= 0:
                self.tls.DTLSv1_handle_timeout()
                self.flush()


class Peer:
    def __init__(self, options):
        self.options = options
        self.address = options["address"]
        self.key, self.certificate = certificate(options["key"])
        self.luck = random.Random(options["seed"])
        self.packets = self.reports = self.bad = self.hellos = 0
        self.samples = []
        self.heard_last = None
        self.sound = self.beside = None

    def loses(self):
        return self.luck.randrange(100) < self.options["loses"]

    def offer(self):
        der = self.certificate.public_bytes(serialization.Encoding.DER)
        print_of = bytearray(hashlib.sha256(der).digest())
        if self.options["fingerprint"] == "wrong":
            print_of[0] ^= 1
        lines = [
            "v=0",
            f"o=peer 7 1 IN IP4 {self.address}",
            "s=-",
            f"c=IN IP4 {self.address}",
            "t=0 0",
            "m=audio 4000 UDP/TLS/RTP/SAVP 0",
            f"a=setup:{self.options['setup']}",
            "a=fingerprint:sha-256 " + ":".join(f"{byte:02X}" for byte in print_of),
        ]
        if self.options["mux"]:
            lines.append("a=rtcp-mux")
        return "".join(line + "\r\n" for line in lines)

    def take(self, answer):
        def find(pattern):
            found = re.search(pattern, answer, re.MULTILINE | re.IGNORECASE)
            return found and found.group(1).strip()

        host, port = find(r"^c=IN IP4 (\S+)"), int(find(r"^m=audio (\d+)"))
        self.muxed = find(r"^a=(rtcp-mux)\s*$") is not None
        told = find(r"^a=rtcp:(\d+)")
        self.remote = (host, port)
        self.remote_reports = (host, int(told) if told else port + 1)
        self.remote_fingerprint = find(r"^a=fingerprint:sha-256 (\S+)").replace(":", "").lower()
        begins = find(r"^a=setup:(\S+)") == "passive"
        self.sound = Association(self, begins)
        self.beside = None if self.muxed else Association(self, begins)

    def heard(self, association, datagram):
        is_report = 192 <= datagram[1] <= 223
        try:
            if is_report:
                keyed = self.sound if self.muxed else self.beside
                if association is not keyed or keyed.receiving is None:
                    self.bad += 1
                    return
                keyed.receiving.unprotect_rtcp(datagram)
                self.reports += 1
            elif association is self.sound and self.sound.receiving:
                packet = self.sound.receiving.unprotect(datagram)
                self.packets += 1
                self.heard_last = struct.unpack("!2xH4xI", packet[:12])
                self.samples.extend(map(decode, packet[12:]))
            else:
                self.bad += 1
        except SrtpError:
            self.bad += 1

    async def say(self):
        loop = asyncio.get_running_loop()
        begun, sent = None, 0
        while True:
            await asyncio.sleep(0.02 if begun is None else max(0, begun + sent * 0.02 - loop.time()))
            if self.sound.sending is None:
                continue
            begun = loop.time() if begun is None else begun
            header = struct.pack("!BBHII", 0x80, 0, sent & 0xFFFF, sent * FRAME, SSRC)
            payload = bytes(map(encode, tone(sent * FRAME, FRAME, RATE)))
            self.sound.send(self.sound.sending.protect(header + payload), self.remote)
            sent += 1
            if sent % 25 == 0:
                self.report(sent)

    def report(self, sent):
        seconds = datetime.datetime.now(datetime.timezone.utc).timestamp() + NTP
        # RFC 3550 sections 6.4.1 and 6.5.
        ntp = int(seconds), int(seconds % 1 * (1 << 32))
        blocks = b""
        if self.heard_last:
            sequence, source = self.heard_last
            blocks = struct.pack("!IIIIII", source, 0, sequence, 0, 0, 0)
        count = len(blocks) // 24
        sender = struct.pack("!BBHIIIIII", 0x80 | count, 200, 6 * (1 + count), SSRC, *ntp, sent * FRAME, sent, sent * FRAME)
        sender += blocks
        name = struct.pack("!BBHIBB4s2x", 0x81, 202, 3, SSRC, 1, 4, b"peer")
        report = sender + name
        keyed = self.sound if self.muxed else self.beside
        if not self.muxed and self.options["reports"] == "clear":
            keyed.send(report, self.remote_reports)
        elif keyed.sending:
            keyed.send(keyed.sending.protect_rtcp(report), keyed.to())

    async def listen(self):
        while True:
            await asyncio.sleep(0.5)
            share, level = judge(self.samples, RATE) if self.samples else (0.0, 0.0)
            self.samples = []
            tell(
                tone=round(share, 4),
                level=round(level, 4),
                packets=self.packets,
                reports=self.reports,
                bad=self.bad,
                hellos=self.hellos,
                reports_state=self.beside.state if self.beside else "muxed",
            )


async def main(options):
    peer = Peer(options)
    tell(offer=peer.offer())
    loop = asyncio.get_running_loop()
    tasks = []
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        peer.take(json.loads(line)["answer"])
        await asyncio.sleep(options["late"])
        running = [peer.sound.run(), peer.say(), peer.listen()]
        peer.sound.open(4000)
        if peer.beside:
            peer.beside.open(4001)
            if options["reports"] == "shake":
                running.append(peer.beside.run())
            else:
                peer.beside.state = "none"
        tasks = [asyncio.ensure_future(task) for task in running]
    for task in tasks:
        task.cancel()


asyncio.run(main(json.loads(sys.argv[1])))
