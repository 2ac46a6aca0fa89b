//! `kapell doctor` and certificates.

use rcgen::{BasicConstraints, CertificateParams, IsCa, KeyPair, date_time_ymd};
use serde_json::Value;

use crate::place::Place;

/// Writes a certificate and its key that hold from a day to a day, as `NAME.pem` and `NAME.key`.
fn certificate(place: &Place, name: &str, from: jiff::civil::Date, until: jiff::civil::Date) {
    let day = |date: jiff::civil::Date| {
        let part = |part: i8| u8::try_from(part).unwrap();
        date_time_ymd(date.year().into(), part(date.month()), part(date.day()))
    };
    let mut params = CertificateParams::new(["kapell.example.org".to_owned()]).unwrap();
    (params.not_before, params.not_after) = (day(from), day(until));
    if name == "ca" {
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    }
    let key = KeyPair::generate().unwrap();
    let made = params.self_signed(&key).unwrap();
    place.write(&format!("{name}.pem"), &made.pem());
    place.write(&format!("{name}.key"), &key.serialize_pem());
}

/// The verdict and the words of a check.
fn check(checks: &Value, name: &str) -> (String, String) {
    let all = checks.as_array().unwrap();
    let found = all.iter().find(|check| check["name"] == name);
    let text = |key: &str| found.map_or("", |found| found[key].as_str().unwrap_or_default());
    (text("verdict").to_owned(), text("found").to_owned())
}

fn days(count: i64) -> jiff::civil::Date {
    let today = jiff::Zoned::now().with_time_zone(jiff::tz::TimeZone::UTC);
    today.date() + jiff::Span::new().days(count)
}

#[test]
fn doctor_looks_at_the_certificate_of_a_server() {
    let place = Place::new();
    assert_eq!(
        check(&place.json(&["doctor", "--json"]), "certificate").0,
        ""
    );
    let looked = |cert: &str, key: &str| {
        let text = format!("[server]\ntls_cert = \"{cert}\"\ntls_key = \"{key}\"\n");
        place.write("kapell.toml", &text);
        check(&place.json(&["doctor", "--json"]), "certificate")
    };
    certificate(&place, "good", days(-9), days(40));
    certificate(&place, "soon", days(-9), days(20));
    certificate(&place, "ended", days(-9), days(-2));
    certificate(&place, "early", days(2), days(40));
    place.write("none.pem", "");
    for (cert, key, verdict, words) in [
        ("good.pem", "good.key", "ok", "ends in 39 days"),
        ("soon.pem", "soon.key", "warn", "ends in 19 days"),
        ("ended.pem", "ended.key", "fail", "`ended.pem` has ended: "),
        ("early.pem", "early.key", "fail", "`early.pem` holds from "),
        (
            "good.pem",
            "soon.key",
            "fail",
            "`good.pem` cannot be used for TLS",
        ),
        (
            "no.pem",
            "good.key",
            "fail",
            "`no.pem` cannot be used for TLS",
        ),
        (
            "good.pem",
            "no.key",
            "fail",
            "`no.key` cannot be used for TLS",
        ),
        (
            "none.pem",
            "good.key",
            "fail",
            "`none.pem` cannot be used for TLS",
        ),
    ] {
        let found = looked(cert, key);
        assert_eq!(found.0, verdict, "{cert} {key}: {found:?}");
        assert!(found.1.contains(words), "{cert} {key}: {found:?}");
    }
    place.write("kapell.toml", "[server]\ntls_cert = \"good.pem\"\n");
    let half = place.kapell(&["doctor"]);
    assert!(
        half.status == 1 && half.out.contains("only one"),
        "{}",
        half.all()
    );
    place.write("kapell.toml", "[server]\ntls_self_signed = true\n");
    let own = check(&place.json(&["doctor", "--json"]), "certificate");
    assert_eq!(own.0, "ok", "{own:?}");
    place.write(".kapell/tls/cert.pem", "broken");
    let own = check(&place.json(&["doctor", "--json"]), "certificate");
    assert_eq!(own.0, "warn", "{own:?}");
}

#[test]
fn doctor_looks_at_the_certificates_that_are_trusted() {
    let place = Place::new();
    certificate(&place, "ca", days(-9), days(400));
    let good = std::fs::read_to_string(place.path("ca.pem")).unwrap();
    certificate(&place, "ca", days(-9), days(-2));
    let ended = std::fs::read_to_string(place.path("ca.pem")).unwrap();
    place.write("good.pem", &good);
    place.write("both.pem", &format!("{ended}{good}"));
    for (file, verdict, words) in [
        ("good.pem", "ok", "ends in 399 days"),
        ("ca.pem", "fail", "`ca.pem` has ended: "),
        // What signs the server's may be the other one.
        ("both.pem", "warn", "`both.pem` has ended: "),
        (
            "no.pem",
            "fail",
            "certificates cannot be read from `no.pem`",
        ),
    ] {
        let server = ["--server", "https://127.0.0.1:1"];
        for flags in [&server[..], &[]] {
            let all = [&["doctor", "--json", "--ca", file], flags].concat();
            let found = check(&place.json(&all), "trusted");
            assert_eq!(found.0, verdict, "{file}: {found:?}");
            assert!(found.1.contains(words), "{file}: {found:?}");
        }
    }
}
