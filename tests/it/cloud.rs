//! The AWS preset against moto, which checks signatures and permissions as AWS does.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use forestall::act::{
    Acceptance, ActError, Actuator as _, AwsAutoscalingSettings, AwsCredentials, CloudActuator, CloudSettings,
    Confirmation, TextTemplate,
};
use forestall::clock::Clock;
use forestall::model::{Millis, Timestamp};
use forestall::plan::{Action, Change};
use serde_json::Value;

use crate::webhook::scale_out;

const REGION: &str = "eu-west-1";

/// An AWS of our own, with one group, `web`: 1 to 6 instances, 2 of them there.
struct Moto {
    child: Child,
    address: String,
    keys: Value,
    folder: tempfile::TempDir,
}

impl Moto {
    /// Starts one; nothing where it could not be had: the test then says so and ends.
    fn start() -> Option<Moto> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let folder = std::env::var_os("FORESTALL_CLOUD").map_or_else(|| root.join("target/cloud"), PathBuf::from);
        let python = folder.join("bin/python");
        if !python.exists() {
            let why = std::fs::read_to_string(folder.join("skipped"))
                .unwrap_or_else(|_| "run tests/setup/cloud.sh, as `make test` does".to_owned());
            let message = format!("no moto in {}: {}", folder.display(), why.trim());
            assert!(std::env::var_os("FORESTALL_NO_SKIP").is_none_or(|v| v != "1"), "{message}");
            let _ = writeln!(std::io::stderr(), "skipped: {message}");
            return None;
        }
        let mut command = Command::new(python);
        command.arg(root.join("tests/cloud/aws.py")).arg(REGION);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().expect("it starts");
        let mut line = String::new();
        let mut printed = BufReader::new(child.stdout.take().expect("it is piped"));
        printed.read_line(&mut line).expect("it says where it listens");
        let started: Value = serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line:?}"));
        let address = started["address"].as_str().expect("an address").to_owned();
        let folder = tempfile::tempdir().expect("a temporary folder");
        Some(Moto { child, address, keys: started["keys"].clone(), folder })
    }

    /// The preset with the key of a user, its secret as it is or another one.
    fn as_user(&self, user: &str, secret: Option<&str>) -> CloudActuator {
        let (id, own) = (&self.keys[user][0], &self.keys[user][1]);
        let (id, own) = (id.as_str().expect("an id"), own.as_str().expect("a secret"));
        let path = self.folder.path().join(format!("{user}-{}", secret.is_some()));
        let secret = secret.unwrap_or(own);
        let text = format!("[{user}]\naws_access_key_id = {id}\naws_secret_access_key = {secret}\n");
        std::fs::write(&path, text).expect("the file can be written");
        let common = CloudSettings {
            group: TextTemplate::parse("web").expect("a name"),
            timeout: Millis::SECOND * 30,
            attempts_max: 1,
            confirm_within: Millis::MINUTE,
            allow_local: true,
        };
        let settings = AwsAutoscalingSettings {
            common,
            region: REGION.to_owned(),
            endpoint: Some(format!("{}/", self.address)),
            credentials: AwsCredentials::File { path, profile: user.to_owned() },
        };
        CloudActuator::aws("web_asg", &settings).expect("right settings")
    }
}

impl Drop for Moto {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn resize(from: u32, to: u32) -> Action {
    Action { change: Change::Replicas { from, to }, ..scale_out("5f3c9a1be07d") }
}

/// Tries a resize that must be refused with these words, and no secret among them.
async fn check_refused(cloud: &CloudActuator, now: Timestamp, parts: &[&str]) {
    let error = cloud.apply(&resize(2, 4), 1, now).await.expect_err("it is refused");
    assert!(matches!(error, ActError::Refused { .. }), "{error:?}");
    let words = error.to_string();
    for part in parts {
        assert!(words.contains(part), "{words} says nothing of {part}");
    }
}

#[tokio::test]
async fn resizes_an_aws_group_with_the_right_key_and_permission_only() {
    let Some(moto) = Moto::start() else { return };
    let now = Clock::wall().now();
    let forged = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY";
    check_refused(&moto.as_user("actor", Some(forged)), now, &["403", "SignatureDoesNotMatch"]).await;
    check_refused(&moto.as_user("nobody", None), now, &["403", "autoscaling:DescribeAutoScalingGroups"]).await;
    let reader = moto.as_user("reader", None);
    check_refused(&reader, now, &["403", "autoscaling:SetDesiredCapacity", "not authorized"]).await;
    assert_eq!(reader.confirm(&resize(2, 4), now).await.expect("it may read"), Confirmation::NeverHeard);

    let actor = moto.as_user("actor", None);
    for (from, to, taken, after) in [
        (2, 4, Acceptance::Accepted, (2, 4)),
        (2, 4, Acceptance::Unchanged, (2, 4)),
        (2, 3, Acceptance::Unchanged, (2, 4)),
        (4, 9, Acceptance::Accepted, (4, 6)),
        (6, 0, Acceptance::Accepted, (6, 1)),
    ] {
        let answer = actor.apply(&resize(from, to), 1, now).await;
        assert_eq!(answer.unwrap_or_else(|error| panic!("{from} to {to}: {error}")), taken, "{from} to {to}");
        // Done: so many instances serve, and no more.
        let (from, size) = after;
        let confirmed = actor.confirm(&resize(from, size), now).await.expect("it may read");
        assert_eq!(confirmed, Confirmation::Done, "{from} to {size}");
        if size > 1 {
            let more = actor.confirm(&resize(from, size + 1), now).await.expect("it may read");
            assert_ne!(more, Confirmation::Done, "there are no more than {size}");
        }
    }
    let error = actor.apply(&resize(1, 0), 1, now).await.expect_err("the group keeps one");
    assert!(error.to_string().contains("its minimum is 1"), "{error}");
}

#[test]
fn the_examples_of_the_documentation_are_right() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/http-actuator.md");
    let text = std::fs::read_to_string(path).expect("the documentation is there");
    let blocks: Vec<&str> = text.split("```yaml\n").skip(1).filter_map(|rest| rest.split("```").next()).collect();
    assert_eq!(blocks.len(), 3, "{blocks:?}");
    for block in blocks {
        let (settings, warnings) =
            forestall::config::load_str(&[("forestall.yml", block)]).unwrap_or_else(|problems| panic!("{problems}"));
        // There is no rule beside it.
        let others: Vec<_> = warnings.iter().filter(|warning| warning.code != "rule/none").collect();
        assert!(others.is_empty(), "{others:?}");
        forestall::act::build(&settings.actuators, &forestall::act::Callbacks::default())
            .unwrap_or_else(|error| panic!("{error}"));
    }
}
