"""G.722.1 for a PJSIP that was built without it: the ITU's program, as PJSIP has it in its third_party/g7221, made known to PJSIP as a codec.

What is here goes between the two as PJSIP's own pjmedia-codec/g7221.c would: SDP with `bitrate` (RFC 5577 section 6.1), a frame of 20 ms a packet, its
16-bit words in network byte order. It does not halve sound, as that does by default. The structures are those of pjmedia/codec.h and pjmedia/frame.h
of PJSIP 2.15.
"""

import ctypes
import sys
from ctypes import CFUNCTYPE, POINTER, Structure, c_int, c_size_t, c_ssize_t, c_uint, c_uint8, c_uint16, c_uint32, c_uint64, c_void_p
from pathlib import Path

sys.path.append(str(Path(__file__).parents[2] / "media-pod/media/tests/g7221"))
import itu

RATE = 16_000
AUDIO_TYPE = 1
AUDIO_FRAME = 1
INVALID = 70_004
# Any of the dynamic ones.
PAYLOAD_TYPE = 120


class Str(Structure):
    _fields_ = [("at", c_void_p), ("length", c_ssize_t)]


class Info(Structure):
    _fields_ = [("type", c_int), ("payload_type", c_uint), ("name", Str), ("rate", c_uint), ("channels", c_uint)]


class Fmtp(Structure):
    _fields_ = [("count", c_uint8), ("parameters", Str * 2 * 16)]


class Param(Structure):
    _fields_ = [
        ("rate", c_uint),
        ("channels", c_uint),
        ("bits", c_uint32),
        ("most_bits", c_uint32),
        ("longest", c_uint),
        ("millis", c_uint16),
        ("millis_divided", c_uint16),
        ("sent_millis", c_uint16),
        ("sent_millis_divided", c_uint16),
        ("sample_bits", c_uint8),
        ("payload_type", c_uint8),
        ("format", c_uint32),
        ("frames", c_uint8),
        ("vad", c_uint, 1),
        ("cng", c_uint, 1),
        ("penh", c_uint, 1),
        ("plc", c_uint, 1),
        ("reserved", c_uint, 1),
        ("theirs", Fmtp),
        ("ours", Fmtp),
        ("packet_loss", c_uint),
        ("complexity", c_uint),
        ("cbr", c_int),
    ]


class Frame(Structure):
    _fields_ = [("type", c_int), ("at", c_void_p), ("size", c_size_t), ("time", c_uint64), ("bits", c_uint32)]


class CodecOps(Structure):
    _fields_ = [
        ("init", CFUNCTYPE(c_int, c_void_p, c_void_p)),
        ("open", CFUNCTYPE(c_int, c_void_p, POINTER(Param))),
        ("close", CFUNCTYPE(c_int, c_void_p)),
        ("modify", CFUNCTYPE(c_int, c_void_p, POINTER(Param))),
        ("parse", CFUNCTYPE(c_int, c_void_p, c_void_p, c_size_t, POINTER(c_uint64), POINTER(c_uint), POINTER(Frame))),
        ("encode", CFUNCTYPE(c_int, c_void_p, POINTER(Frame), c_uint, POINTER(Frame))),
        ("decode", CFUNCTYPE(c_int, c_void_p, POINTER(Frame), c_uint, POINTER(Frame))),
        ("recover", CFUNCTYPE(c_int, c_void_p, c_uint, POINTER(Frame))),
    ]


class Codec(Structure):
    _fields_ = [("before", c_void_p), ("after", c_void_p), ("data", c_void_p), ("factory", c_void_p), ("ops", POINTER(CodecOps))]


class FactoryOps(Structure):
    _fields_ = [
        ("test_alloc", CFUNCTYPE(c_int, c_void_p, POINTER(Info))),
        ("default_attr", CFUNCTYPE(c_int, c_void_p, POINTER(Info), POINTER(Param))),
        ("enum_info", CFUNCTYPE(c_int, c_void_p, POINTER(c_uint), POINTER(Info))),
        ("alloc_codec", CFUNCTYPE(c_int, c_void_p, POINTER(Info), POINTER(c_void_p))),
        ("dealloc_codec", CFUNCTYPE(c_int, c_void_p, c_void_p)),
        ("destroy", CFUNCTYPE(c_int)),
    ]


class Factory(Structure):
    _fields_ = [("before", c_void_p), ("after", c_void_p), ("data", c_void_p), ("ops", POINTER(FactoryOps))]


def text(string):
    kept = ctypes.create_string_buffer(string)
    text.all.append(kept)
    return Str(ctypes.addressof(kept), len(string))


text.all = []


class G7221:
    def __init__(self, program, bitrate):
        self.program = program
        self.bitrate = bitrate
        self.size = bitrate // 400
        self.streams = {}
        self.ops = self.fill(CodecOps)
        self.factory_ops = self.fill(FactoryOps)
        self.factory = Factory(None, None, None, ctypes.pointer(self.factory_ops))
        self.name, self.parameter, self.value = text(b"G7221"), text(b"bitrate"), text(b"%d" % bitrate)

    def fill(self, table):
        return table(*(kind(getattr(self, name)) for name, kind in table._fields_))

    # Of the factory.

    def test_alloc(self, _, info):
        info = info[0]
        named = ctypes.string_at(info.name.at, info.name.length).lower() == b"g7221"
        return 0 if info.type == AUDIO_TYPE and named and info.rate == RATE else INVALID

    def default_attr(self, _, info, param):
        ctypes.memset(param, 0, ctypes.sizeof(Param))
        own = param[0]
        own.rate, own.channels, own.bits, own.most_bits = RATE, 1, self.bitrate, self.bitrate
        own.millis, own.sample_bits = 20, 16
        own.payload_type, own.frames, own.plc = info[0].payload_type, 1, 1
        own.ours.count = 1
        own.ours.parameters[0][0], own.ours.parameters[0][1] = self.parameter, self.value
        return 0

    def enum_info(self, _, count, infos):
        count[0] = 1
        infos[0] = Info(AUDIO_TYPE, PAYLOAD_TYPE, self.name, RATE, 1)
        return 0

    def alloc_codec(self, _, info, place):
        codec = Codec(None, None, None, ctypes.addressof(self.factory), ctypes.pointer(self.ops))
        self.streams[ctypes.addressof(codec)] = codec, itu.Stream(self.program, self.size)
        place[0] = ctypes.addressof(codec)
        return 0

    def dealloc_codec(self, _, codec):
        del self.streams[codec]
        return 0

    def destroy(self):
        return 0

    # Of a codec.

    def init(self, codec, pool):
        return 0

    def open(self, codec, param):
        return 0

    def close(self, codec):
        return 0

    def modify(self, codec, param):
        return 0

    def parse(self, codec, packet, size, time, count, frames):
        found = min(size // self.size, count[0])
        for at in range(found):
            frames[at] = Frame(AUDIO_FRAME, packet + at * self.size, self.size, time[0] + at * itu.SAMPLES, 0)
        count[0] = found
        return 0 if size % self.size == 0 else INVALID

    def encode(self, codec, source, room, made):
        if source[0].size != 2 * itu.SAMPLES or room < self.size:
            return INVALID
        return self.give(made, self.streams[codec][1].encode(ctypes.string_at(source[0].at, 2 * itu.SAMPLES)), source[0].time)

    def decode(self, codec, source, room, made):
        if source[0].size != self.size or room < 2 * itu.SAMPLES:
            return INVALID
        return self.give(made, self.streams[codec][1].decode(ctypes.string_at(source[0].at, self.size)), source[0].time)

    def recover(self, codec, room, made):
        if room < 2 * itu.SAMPLES:
            return INVALID
        return self.give(made, self.streams[codec][1].decode(None), made[0].time)

    @staticmethod
    def give(made, data, time):
        ctypes.memmove(made[0].at, data, len(data))
        made[0].type, made[0].size, made[0].time = AUDIO_FRAME, len(data), time
        return 0


def register(pjsip, packages, bitrate):
    """Makes it known, at this bit rate, to PJSIP, which is in this library; the program is in one of these packages."""
    pjsip = ctypes.CDLL(pjsip)
    pjsip.pjsua_get_pjmedia_endpt.restype = c_void_p
    pjsip.pjmedia_endpt_get_codec_mgr.restype = c_void_p
    pjsip.pjmedia_endpt_get_codec_mgr.argtypes = [c_void_p]
    pjsip.pjmedia_codec_mgr_register_factory.argtypes = [c_void_p, c_void_p]
    manager = pjsip.pjmedia_endpt_get_codec_mgr(pjsip.pjsua_get_pjmedia_endpt())
    register.codec = G7221(itu.library(packages), bitrate)
    failed = pjsip.pjmedia_codec_mgr_register_factory(manager, ctypes.addressof(register.codec.factory))
    if failed:
        raise RuntimeError(f"PJSIP refuses the codec: {failed}")
