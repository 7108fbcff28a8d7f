//! The messages of RFC 4475 (SIP torture tests) that say something about a parser, by section.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use ringwire_sip::message::{
    HeaderName, Host, Message, Method, ParseError, ParseFailure, Request, Response, Scheme,
    StreamItem, StreamParser, parse_datagram,
};
use ringwire_sip::sdp::SessionDescription;

/// The text with CRLF line ends, as a datagram.
fn parse(text: &str) -> Result<Message, ParseFailure> {
    parse_datagram(text.replace('\n', "\r\n").as_bytes())
}

fn request(text: &str) -> Request {
    match parse(text).unwrap() {
        Message::Request(request) => request,
        Message::Response(response) => panic!("a response: {response:?}"),
    }
}

fn response(text: &str) -> Response {
    match parse(text).unwrap() {
        Message::Response(response) => response,
        Message::Request(request) => panic!("a request: {request:?}"),
    }
}

/// The refusal that the sender of this message gets.
fn refused(text: &str) -> (ParseError, Response) {
    let failure = parse(text).unwrap_err();
    let reply = *failure
        .reply
        .unwrap_or_else(|| panic!("no answer for {:?}", failure.error));
    // What is sent has to be readable for the other side, as far as it gave us the values.
    assert!(!reply.reason.is_empty());
    (failure.error, reply)
}

const TORTUOUS: &str = r#"INVITE sip:vivekg@chair-dnrc.example.com;unknownparam SIP/2.0
TO :
 sip:vivekg@chair-dnrc.example.com ;   tag    = 1918181833n
from   : "J Rosenberg \\\""       <sip:jdrosen@example.com>
  ;
  tag = 98asjd8
MaX-fOrWaRdS: 0068
Call-ID: wsinv.ndaksdj@192.0.2.1
Content-Length   : 150
cseq: 0009
  INVITE
Via  : SIP  /   2.0
 /UDP
    192.0.2.2;rport;branch=390skdjuw
s :
NewFangledHeader:   newfangled value
 continued newfangled value
UnknownHeaderWithUnusualValue: ;;,,;;,;
Content-Type: application/sdp
Route:
 <sip:services.example.com;lr;unknownwith=value;unknown-no-value>
v:  SIP  / 2.0  / TCP     spindle.example.com   ;
  branch  =   z9hG4bK9ikj8  ,
 SIP  /    2.0   / UDP  192.168.255.111   ; branch=
 z9hG4bK30239
m:"Quoted string \"\"" <sip:jdrosen@example.com> ; newparam =
      newvalue ;
  secondparam ; q = 0.33

v=0
o=mhandley 29739 7272939 IN IP4 192.0.2.3
s=-
c=IN IP4 192.0.2.4
t=0 0
m=audio 49217 RTP/AVP 0 12
m=video 3227 RTP/AVP 31
a=rtpmap:31 LPC
"#;

fn check_tortuous(invite: &Request) {
    assert_eq!(invite.method, Method::INVITE);
    assert!(invite.uri.params.has("unknownparam"));
    let headers = &invite.headers;
    let to = headers.to().unwrap();
    assert_eq!(
        (to.uri.to_string().as_str(), to.tag()),
        ("sip:vivekg@chair-dnrc.example.com", Some("1918181833n"))
    );
    let from = headers.from_().unwrap();
    assert_eq!(from.display.as_deref(), Some(r#"J Rosenberg \""#));
    assert_eq!(from.tag(), Some("98asjd8"));
    assert_eq!(headers.max_forwards(), Some(68));
    assert_eq!(headers.call_id().unwrap(), "wsinv.ndaksdj@192.0.2.1");
    assert_eq!(headers.cseq().unwrap(), (9, Method::INVITE));
    let vias = headers.vias().unwrap();
    let seen: Vec<_> = vias
        .iter()
        .map(|via| {
            (
                via.transport.as_str(),
                via.host.to_string(),
                via.branch().unwrap(),
            )
        })
        .collect();
    assert_eq!(
        seen,
        [
            ("UDP", "192.0.2.2".to_owned(), "390skdjuw"),
            ("TCP", "spindle.example.com".to_owned(), "z9hG4bK9ikj8"),
            ("UDP", "192.168.255.111".to_owned(), "z9hG4bK30239"),
        ]
    );
    assert!(vias[0].wants_rport() && !vias[0].has_magic_branch() && vias[1].has_magic_branch());
    assert_eq!(headers.get(&HeaderName::from("Subject")), Some(""));
    assert_eq!(
        headers.get(&HeaderName::from("newfangledheader")),
        Some("newfangled value continued newfangled value")
    );
    assert_eq!(
        headers.get(&HeaderName::from("UnknownHeaderWithUnusualValue")),
        Some(";;,,;;,;")
    );
    let routes = headers.routes();
    assert!(
        routes.len() == 1
            && routes[0].uri.is_loose_router()
            && routes[0].uri.params.has("unknown-no-value")
    );
    let contact = headers.contact().unwrap().unwrap();
    assert_eq!(contact.display.as_deref(), Some(r#"Quoted string """#));
    assert_eq!(contact.params.get("newparam"), Some("newvalue"));
    assert_eq!(contact.params.get("q"), Some("0.33"));
    let sdp = SessionDescription::parse(&invite.body).unwrap();
    assert_eq!(sdp.media.len(), 2);
}

#[test]
fn s3_1_1_1_a_short_tortuous_invite_is_read() {
    check_tortuous(&request(TORTUOUS));
}

#[test]
fn s3_1_1_1_is_read_from_a_stream_byte_by_byte() {
    let bytes = TORTUOUS.replace('\n', "\r\n").into_bytes();
    let mut stream = StreamParser::new();
    let mut items = Vec::new();
    for byte in bytes {
        stream.push(&[byte]);
        items.extend(stream.next().unwrap());
    }
    let [StreamItem::Message(Message::Request(invite))] = items.as_slice() else {
        panic!("{items:?}")
    };
    check_tortuous(invite);
    assert!(!stream.is_inside_message());
}

#[test]
fn s3_1_1_2_the_wide_range_of_valid_characters_is_read() {
    let text = concat!(
        "!interesting-Method0123456789_*+`.%indeed'~ ",
        "sip:1_unusual.URI~(to-be!sure)&isn't+it$/crazy?,/;;*:&it+has=1,weird!*pas$wo~d_too.(doesn't-it)@example.com ",
        "SIP/2.0\n",
        "Via: SIP/2.0/UDP host1.example.com;rport;branch=z9hG4bK-.!%66*_+`'~\n",
        "To: \"BEL:\\\x07 NUL:\\\x00 DEL:\\\x7F\" <sip:1_unusual.URI~(to-be!sure)&isn't+it$/crazy?,/;;*@example.com>\n",
        "From: token1~` token2'+_ token3*%!.- <sip:mundane@example.com>",
        ";fromParam''~+*_!.-%=\"\u{440}\u{430}\u{431}\u{43e}\u{442}\u{430}\u{44e}\u{449}\u{438}\u{439}\";tag=_token~1'+`*%!-.\n",
        "Call-ID: intmeth.word%ZK-!.*_+'@word`~)(><:\\/\"][?}{\n",
        "CSeq: 139122385 !interesting-Method0123456789_*+`.%indeed'~\n",
        "Max-Forwards: 255\n",
        "extensionHeader-!.%*+_`'~:\u{fffd}\u{5927}\u{505c}\u{96fb}\n",
        "Content-Length: 0\n\n",
    );
    let request = request(text);
    assert_eq!(
        request.method,
        Method::Other("!interesting-Method0123456789_*+`.%indeed'~".to_owned())
    );
    assert_eq!(
        request.uri.user.as_deref(),
        Some("1_unusual.URI~(to-be!sure)&isn't+it$/crazy?,/;;*")
    );
    assert_eq!(
        request.uri.password.as_deref(),
        Some("&it+has=1,weird!*pas$wo~d_too.(doesn't-it)")
    );
    assert_eq!(request.uri.host, Host::Name("example.com".to_owned()));
    let headers = &request.headers;
    assert_eq!(
        headers.to().unwrap().display.as_deref(),
        Some("BEL:\x07 NUL:\x00 DEL:\x7F")
    );
    let from = headers.from_().unwrap();
    assert_eq!(
        from.display.as_deref(),
        Some("token1~` token2'+_ token3*%!.-")
    );
    assert_eq!(from.params.get("fromparam''~+*_!.-%"), Some("работающий"));
    assert_eq!(from.tag(), Some("_token~1'+`*%!-."));
    assert_eq!(
        headers.call_id().unwrap(),
        "intmeth.word%ZK-!.*_+'@word`~)(><:\\/\"][?}{"
    );
    assert_eq!(
        headers.get(&HeaderName::from("extensionHeader-!.%*+_`'~")),
        Some("\u{fffd}大停電")
    );
}

#[test]
fn s3_1_1_3_percent_escapes_in_uris_are_kept_and_can_be_undone() {
    let request = request(
        "INVITE sip:sips%3Auser%40example.com@example.net SIP/2.0\nTo: sip:%75se%72@example.com\n\
         From: <sip:I%20have%20spaces@example.net>;tag=938\nMax-Forwards: 87\ni: esc01.239409asdfakjkn23onasd0-3234\n\
         CSeq: 234234 INVITE\nVia: SIP/2.0/UDP host5.example.net;branch=z9hG4bKkdjuw\nC: application/sdp\n\
         Contact:\n  <sip:cal%6Cer@host5.example.net;%6C%72;n%61me=v%61lue%25%34%31>\nContent-Length: 0\n\n",
    );
    assert_eq!(
        request.uri.user.as_deref(),
        Some("sips%3Auser%40example.com")
    );
    assert_eq!(
        request.uri.user_unescaped().as_deref(),
        Some("sips:user@example.com")
    );
    assert_eq!(request.uri.host, Host::Name("example.net".to_owned()));
    let to = request.headers.to().unwrap();
    assert!(to.uri.equivalent(&"sip:user@example.com".parse().unwrap()));
    assert_eq!(
        request
            .headers
            .from_()
            .unwrap()
            .uri
            .user_unescaped()
            .as_deref(),
        Some("I have spaces")
    );
    let contact = request.headers.contact().unwrap().unwrap();
    assert_eq!(contact.uri.params.get("n%61me"), Some("v%61lue%25%34%31"));
}

#[test]
fn s3_1_1_4_an_escaped_nul_stays_escaped() {
    let register = request(
        "REGISTER sip:example.com SIP/2.0\nTo: sip:null-%00-null@example.com\n\
         From: sip:null-%00-null@example.com;tag=839923423\nMax-Forwards: 70\n\
         Call-ID: escnull.39203ndfvkjdasfkq3w4otrq0adsfdfnavd\nCSeq: 14398234 REGISTER\n\
         Via: SIP/2.0/UDP host5.example.com;rport;branch=z9hG4bKkdjuw\nContact: <sip:%00@host5.example.com>\n\
         Contact: <sip:%00%00@host5.example.com>\nL:0\n\n",
    );
    let contacts = register.headers.contacts().unwrap();
    assert_eq!(contacts.len(), 2);
    assert!(!contacts[0].uri.equivalent(&contacts[1].uri));
}

#[test]
fn s3_1_1_5_a_percent_sign_in_a_method_is_no_escape() {
    let request = request(
        "RE%47IST%45R sip:registrar.example.com SIP/2.0\nTo: \"%Z%45\" <sip:resource@example.com>\n\
         From: \"%Z%45\" <sip:resource@example.com>;tag=f232jadfj23\nCall-ID: esc02.asdfnqwo34rq23i34jrjasdcnl23nrlknsdf\n\
         Via: SIP/2.0/TCP host.example.com;rport;branch=z9hG4bK209%fzsnel234\nCSeq: 29344 RE%47IST%45R\n\
         Max-Forwards: 70\nContact: <sip:alias1@host1.example.com>\nC%6Fntact: <sip:alias2@host2.example.com>\n\
         Contact: <sip:alias3@host3.example.com>\nl: 0\n\n",
    );
    assert_eq!(request.method, Method::Other("RE%47IST%45R".to_owned()));
    assert_eq!(request.headers.contacts().unwrap().len(), 2);
    assert_eq!(
        request.headers.to().unwrap().display.as_deref(),
        Some("%Z%45")
    );
}

#[test]
fn s3_1_1_6_no_white_space_before_an_angle_bracket() {
    let options = request(
        "OPTIONS sip:user@example.com SIP/2.0\nTo: sip:user@example.com\nFrom: caller<sip:caller@example.com>;tag=323\n\
         Max-Forwards: 70\nCall-ID: lwsdisp.1234abcd@funky.example.com\nCSeq: 60 OPTIONS\n\
         Via: SIP/2.0/UDP funky.example.com;branch=z9hG4bKkdjuw\nl: 0\n\n",
    );
    assert_eq!(
        options.headers.from_().unwrap().display.as_deref(),
        Some("caller")
    );
}

#[test]
fn s3_1_1_7_long_values_are_read() {
    let name = "I have a user name of extreme proportion".repeat(8);
    let param = "very".repeat(60);
    let invite = request(&format!(
        "INVITE sip:user@example.com SIP/2.0\nTo: \"{name}\"<sip:user@example.com:6000;unknownparam1={param}longvalue;\
         longparam{param}name=shortvalue>\nF: sip:amazinglylong{param}callername@example.net;tag=12{param}34\n\
         Call-ID: longreq.one{param}longcallid\nCSeq: 3882340 INVITE\nMax-Forwards: 70\n{}\
         Via: SIP/2.0/TCP host.example.com;received=192.0.2.5;branch={param}longbranchvalue\nL: 0\n\n",
        "Via: SIP/2.0/TCP sip33.example.com;branch=z9hG4bK1\n".repeat(34)
    ));
    assert_eq!(invite.headers.vias().unwrap().len(), 35);
    assert_eq!(invite.headers.to().unwrap().display, Some(name));
}

#[test]
fn s3_1_1_8_what_follows_a_shorter_content_length_is_discarded() {
    let register = request(
        "REGISTER sip:example.com SIP/2.0\nTo: sip:j.user@example.com\nFrom: sip:j.user@example.com;tag=43251j3j324\n\
         Max-Forwards: 8\nI: dblreq.0ha0isndaksdj99sdfafnl3lk233412\nContact: sip:j.user@host.example.com\n\
         CSeq: 8 REGISTER\nVia: SIP/2.0/UDP 192.0.2.125;branch=z9hG4bKkdjuw23492\nContent-Length: 0\n\n\n\
         INVITE sip:joe@example.com SIP/2.0\nt: sip:joe@example.com\n\n",
    );
    assert_eq!(
        (register.method, register.body.len()),
        (Method::REGISTER, 0)
    );
}

#[test]
fn s3_1_1_9_a_semicolon_in_the_user_part_belongs_to_the_user() {
    let options = request(
        "OPTIONS sip:user;par=u%40example.net@example.com SIP/2.0\nTo: sip:j_user@example.com\n\
         From: sip:caller@example.org;tag=33242\nMax-Forwards: 3\nCall-ID: semiuri.0ha0isndaksdj\nCSeq: 8 OPTIONS\n\
         Accept: application/sdp, application/pkcs7-mime,\n        multipart/mixed, multipart/signed,\n        message/sip, message/sipfrag\n\
         Via: SIP/2.0/UDP 192.0.2.1;branch=z9hG4bKkdjuw\nl: 0\n\n",
    );
    assert_eq!(
        options.uri.user.as_deref(),
        Some("user;par=u%40example.net")
    );
    assert!(options.uri.params.is_empty());
    assert_eq!(options.headers.values(&HeaderName::Accept).count(), 6);
}

#[test]
fn s3_1_1_10_any_transport_may_stand_in_a_via() {
    let options = request(
        "OPTIONS sip:user@example.com SIP/2.0\nTo: sip:user@example.com\nFrom: <sip:caller@example.com>;tag=323\n\
         Max-Forwards: 70\nCall-ID:  transports.kijh4akdnaqjkwendsasfdj\nAccept: application/sdp\nCSeq: 60 OPTIONS\n\
         Via: SIP/2.0/UDP t1.example.com;branch=z9hG4bKkdjuw\nVia: SIP/2.0/SCTP t2.example.com;branch=z9hG4bKklasjdhf\n\
         Via: SIP/2.0/TLS t3.example.com;branch=z9hG4bK2980unddj\nVia: SIP/2.0/UNKNOWN t4.example.com;branch=z9hG4bKasd0f3en\n\
         Via: SIP/2.0/TCP t5.example.com;branch=z9hG4bK0a9idfnee\nl: 0\n\n",
    );
    let transports: Vec<_> = options
        .headers
        .vias()
        .unwrap()
        .into_iter()
        .map(|via| via.transport)
        .collect();
    assert_eq!(transports, ["UDP", "SCTP", "TLS", "UNKNOWN", "TCP"]);
}

#[test]
fn s3_1_1_12_an_unusual_reason_phrase_is_kept() {
    let answer = response(
        "SIP/2.0 200 = 2**3 * 5**2 но сто девяносто девять - простое\nVia: SIP/2.0/UDP 192.0.2.198;branch=z9hG4bK1324923\n\
         Call-ID: unreason.1234ksdfak3j2erwedfsASdf\nCSeq: 35 INVITE\nFrom: sip:user@example.com;tag=11141343\n\
         To: sip:user@example.edu;tag=2229\nContact: <sip:user@host198.example.com>\n\n",
    );
    assert_eq!(
        answer.reason,
        "= 2**3 * 5**2 но сто девяносто девять - простое"
    );
}

#[test]
fn s3_1_1_13_the_reason_phrase_may_be_empty() {
    for line in ["SIP/2.0 100 ", "SIP/2.0 100"] {
        let answer = response(&format!(
            "{line}\nVia: SIP/2.0/UDP 192.0.2.105;branch=z9hG4bK2398ndaoe\nCall-ID: noreason.asndj203insdf99223ndf\n\
             CSeq: 35 INVITE\nFrom: <sip:user@example.com>;tag=39ansfi3\nTo: <sip:user@example.edu>;tag=902jndnke3\n\
             Content-Length: 0\n\n"
        ));
        assert_eq!((answer.status, answer.reason.as_str()), (100, ""));
    }
}

/// An OPTIONS with one thing changed or added.
fn options(start: &str, extra: &str, without: &str) -> String {
    let fields = [
        "Via: SIP/2.0/UDP 192.0.2.1;branch=z9hG4bKkdjuw",
        "Max-Forwards: 70",
        "To: <sip:user@example.com>",
        "From: <sip:caller@example.org>;tag=33242",
        "Call-ID: torture.0ha0isndaksdj",
        "CSeq: 8 OPTIONS",
    ];
    let kept: Vec<_> = fields
        .iter()
        .filter(|field| without.is_empty() || !field.starts_with(without))
        .collect();
    let mut text = format!("{start}\n");
    for field in kept {
        text.push_str(field);
        text.push('\n');
    }
    format!("{text}{extra}\n")
}

const START: &str = "OPTIONS sip:user@example.com SIP/2.0";

#[test]
fn s3_1_2_1_extraneous_separators_in_via_are_refused() {
    let text = options(START, "Via: SIP/2.0/UDP 192.0.2.15;;,;,,\n", "");
    let (error, reply) = refused(&text);
    assert_eq!(reply.status, 400);
    assert_eq!(
        error,
        ParseError::Header {
            header: "Via".to_owned(),
            problem: "no protocol"
        }
    );
}

#[test]
fn s3_1_2_2_a_content_length_beyond_the_datagram_is_refused() {
    let (error, reply) = refused(&options(START, "Content-Length: 9999\n\nv=0\n", ""));
    assert_eq!((error, reply.status), (ParseError::BodyTruncated, 400));
    assert_eq!(reply.reason, "Body shorter than Content-Length");
}

#[test]
fn s3_1_2_3_a_negative_content_length_is_refused() {
    assert_eq!(
        refused(&options(START, "Content-Length: -999\n", ""))
            .1
            .status,
        400
    );
}

#[test]
fn s3_1_2_4_numbers_too_large_in_a_request_are_refused_or_bounded() {
    let (_, reply) = refused(&options(
        START,
        "CSeq: 36893488147419103232 OPTIONS\n",
        "CSeq",
    ));
    assert_eq!(
        (reply.status, reply.reason.as_str()),
        (400, "Bad CSeq: number too large")
    );
    let bounded = request(&options(START, "Expires: 1000000000000000000000000\n", ""));
    assert_eq!(bounded.headers.expires(), Some(u32::MAX));
}

#[test]
fn s3_1_2_5_numbers_too_large_in_a_response_drop_it() {
    let failure = parse(
        "SIP/2.0 503 Service Unavailable\nVia: SIP/2.0/TCP host129.example.com;branch=z9hG4bKzzxdiwo34sw;received=192.0.2.129\n\
         To: <sip:user@example.com>\nFrom: <sip:other@example.net>;tag=2easdjfejw\nCSeq: 9292394834772304023312 OPTIONS\n\
         Call-ID: scalarlg.noase0of0234hn2qofoaf0232aewf2394r\nRetry-After: 949302838503028349304023988\n\
         Warning: 1812 overture \"In Progress\"\nContent-Length: 0\n\n",
    )
    .unwrap_err();
    assert!(failure.reply.is_none());
}

#[test]
fn s3_1_2_6_an_unterminated_quote_is_refused() {
    let (_, reply) = refused(&options(
        START,
        "To: \"Mr. J. User <sip:j.user@example.com>\n",
        "To",
    ));
    assert_eq!(
        (reply.status, reply.reason.as_str()),
        (400, "Bad To: unterminated quote")
    );
}

#[test]
fn s3_1_2_7_to_9_bad_request_uris_are_refused() {
    for uri in [
        "<sip:user@example.com>",
        "sip:user@example.com; lr",
        "example.com",
        "sip:",
        "sip:user@",
        "sip:u@h:99999",
    ] {
        let (_, reply) = refused(&options(&format!("OPTIONS {uri} SIP/2.0"), "", ""));
        assert_eq!(reply.status, 400, "{uri}");
        assert!(reply.reason.starts_with("Bad URI: "), "{}", reply.reason);
    }
}

#[test]
fn s3_1_2_9_and_10_superfluous_spaces_around_the_request_uri_are_tolerated() {
    let read = request(&options("OPTIONS  sip:user@example.com  SIP/2.0  ", "", ""));
    assert_eq!(read.uri.to_string(), "sip:user@example.com");
}

#[test]
fn s3_1_2_14_and_15_spaces_and_commas_around_an_address_are_tolerated() {
    let read = request(&options(
        START,
        "To: \"Watson, Thomas\" < sip:t.watson@example.org >\n",
        "To",
    ));
    assert_eq!(
        read.headers.to().unwrap().display.as_deref(),
        Some("Watson, Thomas")
    );
    let read = request(&options(
        START,
        "From: Bell, Alexander <sip:a.g.bell@example.com>;tag=43\n",
        "From",
    ));
    assert_eq!(read.headers.from_().unwrap().tag(), Some("43"));
}

#[test]
fn s3_1_2_16_an_unknown_version_gets_505() {
    let (error, reply) = refused(&options("OPTIONS sip:t.watson@example.org SIP/7.0", "", ""));
    assert_eq!(
        (error, reply.status, reply.reason.as_str()),
        (ParseError::Version, 505, "Version Not Supported")
    );
}

#[test]
fn s3_1_2_17_and_18_a_cseq_with_another_method_is_refused() {
    assert_eq!(
        refused(&options(START, "CSeq: 8 INVITE\n", "CSeq"))
            .1
            .status,
        400
    );
    let start = "NEWMETHOD sip:user@example.com SIP/2.0";
    assert_eq!(refused(&options(start, "", "")).1.status, 400);
}

#[test]
fn s3_1_2_19_an_overlarge_response_code_drops_the_response() {
    for status in ["4294967301", "99", "700", "abc", ""] {
        let failure = parse(&options(
            &format!("SIP/2.0 {status} better not break the receiver"),
            "",
            "",
        ))
        .unwrap_err();
        assert!(failure.reply.is_none(), "{status}");
    }
}

#[test]
fn s3_3_1_missing_required_headers_are_named() {
    for name in ["To", "From", "Call-ID", "CSeq"] {
        let (error, reply) = refused(&options(START, "", name));
        assert!(matches!(error, ParseError::Missing(_)));
        assert_eq!(
            (reply.status, reply.reason),
            (400, format!("Missing {name}"))
        );
    }
    assert_eq!(
        parse(&options(START, "", "Via")).unwrap_err().reply,
        None,
        "without Via there is no way back"
    );
}

#[test]
fn s3_3_2_an_unknown_scheme_is_for_the_caller_to_refuse() {
    let read = request(&options(
        "OPTIONS nobodyKnowsThisScheme:totallyopaquecontent SIP/2.0",
        "",
        "",
    ));
    assert_eq!(
        read.uri.scheme,
        Scheme::Other("nobodyknowsthisscheme".to_owned())
    );
    assert_eq!(read.uri.user.as_deref(), Some("totallyopaquecontent"));
}

#[test]
fn s3_3_8_several_values_where_one_is_allowed_are_refused() {
    for extra in [
        "CSeq: 59 OPTIONS",
        "Call-ID: another",
        "To: <sip:b@example.com>",
        "f: <sip:b@x.example>;tag=1",
        "Max-Forwards: 5",
    ] {
        let (error, reply) = refused(&options(START, &format!("{extra}\n"), ""));
        assert!(matches!(error, ParseError::Repeated(_)), "{extra}");
        assert_eq!(reply.status, 400);
    }
}

#[test]
fn s3_3_9_content_lengths_that_differ_are_refused() {
    let (error, _) = refused(&options(
        START,
        "Content-Length: 13\nl: 5\n\nThere's no way to know how many octets",
        "",
    ));
    assert_eq!(error, ParseError::Repeated("Content-Length"));
    let same = request(&options(START, "Content-Length: 2\nl: 2\n\nab", ""));
    assert_eq!(same.body, b"ab");
}

#[test]
fn s3_3_13_a_200_with_a_broadcast_via_is_read_without_harm() {
    let answer = response(
        "SIP/2.0 200 OK\nVia: SIP/2.0/UDP 192.0.2.198;branch=z9hG4bK1324923\nVia: SIP/2.0/UDP 255.255.255.255;branch=z9hG4bK1saber23\n\
         Call-ID: bcast.0384840201234ksdfak3j2erwedfsASdf\nCSeq: 35 INVITE\nFrom: sip:user@example.com;tag=11141343\n\
         To: sip:user@example.edu;tag=2229\nContent-Length: 0\n\n",
    );
    assert_eq!(answer.headers.vias().unwrap().len(), 2);
}

#[test]
fn s3_4_1_the_invite_of_rfc_2543_is_read() {
    let invite = request(
        "INVITE sip:UserB@example.com SIP/2.0\nVia: SIP/2.0/UDP iftgw.example.com\nFrom: <sip:+13035551111@ift.client.example.net;user=phone>\n\
         Record-Route: <sip:UserB@example.com;maddr=ss1.example.com>\nTo: sip:+16505552222@ss1.example.net;user=phone\n\
         Call-ID: inv2543.1717@ift.client.example.com\nCSeq: 56 INVITE\nContent-Type: application/sdp\n\nv=0\n",
    );
    assert_eq!(invite.headers.via().unwrap().branch(), None);
    assert_eq!(invite.headers.from_().unwrap().tag(), None);
    assert_eq!(
        invite.headers.to().unwrap().params.get("user"),
        Some("phone")
    );
    assert_eq!(invite.body, b"v=0\r\n");
}
