"""A SIP phone (PJSIP) for the end-to-end tests: it calls, plays a file, and records what it hears. Who calls it, hears himself.

    phone.py OPTIONS

OPTIONS is a JSON object:
    address      where it is: SIP on port 5060, sound on ports from 4000 on
    codec        the only codec that it offers, such as iLBC/8000/1
    mode         milliseconds of a frame of iLBC: 20 or 30
    bitrate      bits per second of G.722.1: 24000 or 32000
    g7221        the Python environment that has a library which codes it
    log          the file for its log
    ice          whether it offers ICE
    sdes         whether it encrypts, with keys in the session description

It speaks JSON, an object a line. First it writes {"ready": version}, then it reads {"do": ...}, one of
    call         with "to", a URI: {"media": ...} follows when there is sound, {"ended": status} when it is over
    talk         plays the file "play", and records to "record"
    rest         ends that: {"rested": ..., what it counted} follows
    restart      a re-INVITE with transports of their own, so with new names and passwords of ICE: {"media": ...} follows
    hang up
It ends with its input.
"""

import json
import select
import sys
import time
from pathlib import Path

import g7221
import pjsua2 as pj
from pjsua2 import pjsua2 as library


def tell(**what):
    print(json.dumps(what), flush=True)


class Call(pj.Call):
    def onCallState(self, prm):
        info = self.getInfo()
        if info.state == pj.PJSIP_INV_STATE_DISCONNECTED:
            tell(ended=info.lastStatusCode, reason=info.lastReason)

    def onCallMediaState(self, prm):
        # What is part of something is there as long as that is.
        info = self.getInfo()
        if info.media[0].status == pj.PJSUA_CALL_MEDIA_ACTIVE:
            stream = self.getStreamInfo(0)
            of = stream.audCodecParam
            fmtp = {own.name: own.val for own in of.setting.decFmtp}
            theirs = {own.name: own.val for own in of.setting.encFmtp}
            tell(
                media=f"{stream.codecName}/{stream.codecClockRate}",
                bits=of.info.avgBps,
                millis=of.info.frameLen * of.setting.frmPerPkt // max(1, of.info.frameLenDenum),
                fmtp=fmtp,
                theirs=theirs,
            )
            if info.role == pj.PJSIP_ROLE_UAS:
                sound = self.getAudioMedia(0)
                sound.startTransmit(sound)


class Account(pj.Account):
    def onIncomingCall(self, prm):
        self.call = Call(self, prm.callId)
        answer = pj.CallOpParam(True)
        answer.statusCode = pj.PJSIP_SC_OK
        self.call.answer(answer)


class Phone:
    def __init__(self, options):
        self.options = options
        self.endpoint = pj.Endpoint()
        self.endpoint.libCreate()
        config = pj.EpConfig()
        config.logConfig.level, config.logConfig.consoleLevel = 5, 0
        config.logConfig.filename = options["log"]
        # Callbacks come while events are handled, and on no other thread.
        config.uaConfig.threadCnt = 0
        config.uaConfig.mainThreadOnly = True
        config.medConfig.clockRate = int(options["codec"].split("/")[1])
        config.medConfig.noVad = True
        config.medConfig.ecTailLen = 0
        config.medConfig.ilbcMode = options["mode"]
        self.endpoint.libInit(config)
        self.endpoint.audDevManager().setNullDev()
        if options["codec"].startswith("G7221/"):
            (packages,) = Path(options["g7221"]).glob("lib/*/site-packages")
            g7221.register(library._pjsua2.__file__, packages, options["bitrate"])
        for codec in self.endpoint.codecEnum2():
            self.endpoint.codecSetPriority(codec.codecId, 255 if codec.codecId == options["codec"] else 0)
        if options["codec"].startswith("iLBC/"):
            # The enhancer of its decoder (RFC 3951 section 4.6) improves on what was said, which is compared here with what is heard.
            param = self.endpoint.codecGetParam(options["codec"])
            param.setting.penh = False
            self.endpoint.codecSetParam(options["codec"], param)
        transport = pj.TransportConfig()
        transport.port = 5060
        transport.boundAddress = options["address"]
        self.endpoint.transportCreate(pj.PJSIP_TRANSPORT_UDP, transport)
        self.endpoint.libStart()
        self.account = self.make_account()
        self.call = self.player = self.recorder = None
        tell(ready=self.endpoint.libVersion().full)

    def make_account(self):
        options = self.options
        config = pj.AccountConfig()
        config.idUri = f"sip:phone@{options['address']}"
        config.mediaConfig.transportConfig.boundAddress = options["address"]
        config.mediaConfig.transportConfig.port = 4000
        config.natConfig.iceEnabled = options["ice"]
        if options["sdes"]:
            config.mediaConfig.srtpUse = pj.PJMEDIA_SRTP_MANDATORY
            config.mediaConfig.srtpSecureSignaling = 0
            config.mediaConfig.srtpOpt.keyings = pj.IntVector([pj.PJMEDIA_SRTP_KEYING_SDES])
        account = Account()
        account.create(config)
        return account

    def do_call(self, to):
        self.call = Call(self.account)
        prm = pj.CallOpParam(True)
        prm.opt.videoCount = 0
        self.call.makeCall(to, prm)

    def do_talk(self, play, record):
        self.player = pj.AudioMediaPlayer()
        self.player.createPlayer(play, pj.PJMEDIA_FILE_NO_LOOP)
        self.recorder = pj.AudioMediaRecorder()
        self.recorder.createRecorder(record)
        media = self.call.getAudioMedia(0)
        media.startTransmit(self.recorder)
        self.player.startTransmit(media)

    def do_rest(self):
        stream = self.call.getStreamStat(0)
        found = stream.rtcp
        # The end of the file is written when it is let go, with the next frame.
        self.player = self.recorder = None
        time.sleep(0.1)
        tell(
            rested=True,
            sent=found.txStat.pkt,
            heard=found.rxStat.pkt,
            lost=found.rxStat.loss,
            discarded=found.rxStat.discard,
            lost_there=found.txStat.loss,
            dump=self.call.dump(True, " "),
        )

    def do_restart(self):
        prm = pj.CallOpParam(True)
        prm.opt.videoCount = 0
        prm.opt.flag |= pj.PJSUA_CALL_REINIT_MEDIA
        self.call.reinvite(prm)

    def do_hang_up(self):
        self.call.hangup(pj.CallOpParam())

    def run(self):
        while True:
            self.endpoint.libHandleEvents(10)
            if select.select([sys.stdin], [], [], 0)[0]:
                line = sys.stdin.readline()
                if not line:
                    break
                wanted = json.loads(line)
                getattr(self, "do_" + wanted.pop("do").replace(" ", "_"))(**wanted)
        self.call = self.account = self.player = self.recorder = None
        self.endpoint.libDestroy()


Phone(json.loads(sys.argv[1])).run()
