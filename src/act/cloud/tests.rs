//! The clouds against a server that answers as they do, and the arithmetic of sizes.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD as BASE64, URL_SAFE_NO_PAD};
use proptest::prelude::*;
use ring::signature::{KeyPair, RSA_PKCS1_2048_8192_SHA256, RsaKeyPair, UnparsedPublicKey};
use serde_json::{Value, json};

use super::super::cloud_settings::{AwsCredentials, AzureCredentials, GcpCredentials, GcpPlace};
use super::super::tests::{Got, NOW, Reply, Server, action};
use super::*;
use crate::act::TextTemplate;
use crate::model::Millis;
use crate::plan::ActionKind;

/// A key of a service account that nobody has.
const TEST_KEY: &str = include_str!("test_key.pem");

fn leak(text: String) -> &'static str {
    Box::leak(text.into_boxed_str())
}

fn ok(body: impl ToString) -> Reply {
    Reply::Status(200, leak(body.to_string()))
}

fn common() -> CloudSettings {
    CloudSettings {
        group: TextTemplate::parse("{target.name}").expect("a placeholder"),
        timeout: Millis(5000),
        attempts_max: 3,
        confirm_within: Millis::MINUTE,
        allow_local: true,
    }
}

/// A folder with a file for each secret.
fn secrets() -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let key = json!({"type": "service_account", "client_email": "f@p.example", "private_key": TEST_KEY,
        "token_uri": "SERVER/token"});
    for (name, text) in [
        ("aws", "[other]\naws_access_key_id = no\n[default]\n# a remark\naws_access_key_id = AKIDEXAMPLE\naws_secret_access_key=s3cr3t\n".to_owned()),
        ("gcp", key.to_string()),
        ("azure", "s3cr3t\n".to_owned()),
        ("jwt", "own.t0k3n".to_owned()),
    ] {
        std::fs::write(folder.path().join(name), text).expect("the file can be written");
    }
    folder
}

fn aws(server: &Server, credentials: AwsCredentials) -> CloudActuator {
    let settings = AwsAutoscalingSettings {
        common: common(),
        region: "eu-west-1".to_owned(),
        endpoint: Some(format!("{}/", server.address)),
        credentials,
    };
    CloudActuator::aws("asg", &settings).expect("right settings")
}

fn aws_by_file(server: &Server, folder: &tempfile::TempDir) -> CloudActuator {
    aws(server, AwsCredentials::File { path: folder.path().join("aws"), profile: "default".to_owned() })
}

fn gcp(server: &Server, credentials: GcpCredentials) -> CloudActuator {
    let settings = GcpMigSettings {
        common: common(),
        project: "proj".to_owned(),
        place: GcpPlace::Zone("europe-west1-b".to_owned()),
        min_size: 1,
        max_size: 8,
        endpoint: Some(server.address.clone()),
        credentials,
    };
    CloudActuator::gcp("mig", &settings).expect("right settings")
}

fn azure(server: &Server, folder: &tempfile::TempDir) -> CloudActuator {
    azure_as(
        server,
        AzureCredentials::ClientSecret {
            tenant_id: "tenant".to_owned(),
            client_id: "client".to_owned(),
            client_secret_file: folder.path().join("azure"),
            authority: Some(server.address.clone()),
        },
    )
}

fn azure_as(server: &Server, credentials: AzureCredentials) -> CloudActuator {
    let settings = AzureVmssSettings {
        common: common(),
        subscription_id: "sub".to_owned(),
        resource_group: "rg".to_owned(),
        min_size: 1,
        max_size: 8,
        endpoint: Some(server.address.clone()),
        credentials,
    };
    let groups = azure::Azure::new("vmss", &settings).expect("right settings").with_metadata(&server.address);
    CloudActuator { groups: Groups::Azure(groups), settings: common() }
}

fn resize(from: u32, to: u32) -> Action {
    let mut action = action("5f3c9a1be07d");
    action.change = Change::Replicas { from, to };
    action
}

fn give_back(from: u32, to: u32) -> Action {
    Action { undoes: Some("earlier".to_owned()), ..resize(from, to) }
}

fn asg(desired: u32, min: u32, max: u32, instances: &[(&str, bool)]) -> Reply {
    let instances: String = instances
        .iter()
        .map(|(state, protected)| {
            format!(
                "<member><InstanceId>i</InstanceId><LifecycleState>{state}</LifecycleState>\
                 <ProtectedFromScaleIn>{protected}</ProtectedFromScaleIn></member>"
            )
        })
        .collect();
    ok(format!(
        r#"<DescribeAutoScalingGroupsResponse xmlns="http://autoscaling.amazonaws.com/doc/2011-01-01/">
        <DescribeAutoScalingGroupsResult><AutoScalingGroups><member><AutoScalingGroupName>checkout</AutoScalingGroupName>
        <MinSize>{min}</MinSize><MaxSize>{max}</MaxSize><DesiredCapacity>{desired}</DesiredCapacity>
        <Instances>{instances}</Instances><Tags><member><Key>Status</Key></member></Tags></member></AutoScalingGroups>
        </DescribeAutoScalingGroupsResult></DescribeAutoScalingGroupsResponse>"#
    ))
}

fn aws_error(status: u16, code: &str, message: &str) -> Reply {
    let text = format!(
        r#"<ErrorResponse xmlns="http://autoscaling.amazonaws.com/doc/2011-01-01/"><Error><Type>Sender</Type>
        <Code>{code}</Code><Message>{message}</Message></Error><RequestId>r</RequestId></ErrorResponse>"#
    );
    Reply::Status(status, leak(text))
}

fn text(got: &Got) -> String {
    String::from_utf8(got.body.to_vec()).expect("text")
}

/// What an action comes to against AWS's answers: `accepted`, `unchanged`, or a part of the error; and the size that was asked
/// for, if one was.
async fn check_aws(replies: &[Reply], action: &Action, attempt: u32, wanted: &str, size: Option<u32>) {
    let (server, folder) = (Server::start(replies).await, secrets());
    let answer = aws_by_file(&server, &folder).apply(action, attempt, NOW).await;
    let words = match &answer {
        Ok(acceptance) => format!("{acceptance:?}"),
        Err(error) => format!("{error:?} {error}"),
    };
    assert!(words.contains(wanted), "{replies:?} {action:?}: {words}");
    assert!(!words.contains("s3cr3t"), "{words}");
    let asked = server.got().iter().map(text).find(|body| body.contains("SetDesiredCapacity"));
    let asked = asked.map(|body| {
        let size = body.split("DesiredCapacity=").nth(1).and_then(|rest| rest.split('&').next());
        size.and_then(|size| size.parse::<u32>().ok()).expect("a size")
    });
    assert_eq!(asked, size, "{replies:?} {action:?}: {words}");
}

#[tokio::test]
async fn sets_the_desired_capacity_of_an_aws_group_within_its_bounds() {
    let up = "InService";
    let set = ok("<SetDesiredCapacityResponse/>");
    for (group, action, attempt, wanted, size) in [
        (asg(3, 1, 10, &[(up, false); 3]), resize(3, 5), 1, "Accepted", Some(5)),
        (asg(3, 1, 4, &[(up, false); 3]), resize(3, 5), 1, "Accepted", Some(4)),
        (asg(4, 1, 4, &[(up, false); 4]), resize(3, 5), 1, "its maximum is 4", None),
        (asg(5, 1, 10, &[]), resize(3, 5), 1, "Unchanged", None),
        (asg(5, 1, 10, &[]), resize(3, 5), 2, "Accepted", None),
        (asg(7, 1, 10, &[(up, false); 7]), resize(3, 5), 1, "Unchanged", None),
        (asg(0, 2, 10, &[]), resize(0, 1), 1, "Accepted", Some(2)),
        (asg(5, 1, 10, &[(up, false); 5]), give_back(5, 3), 1, "Accepted", Some(3)),
        (asg(4, 1, 4, &[(up, false); 4]), give_back(5, 3), 1, "Accepted", Some(3)),
        (asg(5, 4, 10, &[(up, false); 5]), give_back(5, 3), 1, "Accepted", Some(4)),
        (asg(5, 5, 10, &[(up, false); 5]), give_back(5, 3), 1, "its minimum is 5", None),
        (asg(6, 1, 10, &[(up, false); 6]), give_back(5, 3), 1, "somebody else set 6", None),
        (asg(2, 1, 10, &[(up, false); 2]), give_back(5, 3), 1, "somebody else set 2", None),
        (asg(3, 1, 10, &[(up, false); 3]), give_back(5, 3), 1, "Unchanged", None),
        (
            asg(5, 1, 10, &[(up, true), (up, true), (up, true), (up, true), (up, false)]),
            give_back(5, 3),
            1,
            "Accepted",
            Some(4),
        ),
        (asg(5, 1, 10, &[(up, true); 5]), give_back(5, 3), 1, "protected from scale-in", None),
    ] {
        check_aws(&[group, set.clone()], &action, attempt, wanted, size).await;
    }
    let evict = Action { kind: ActionKind::Evict, ..resize(5, 4) };
    check_aws(&[asg(5, 1, 10, &[(up, false); 5]), set], &evict, 1, "Accepted", Some(4)).await;
    let cordon = Action { change: Change::Cordon, ..resize(1, 2) };
    check_aws(&[asg(5, 1, 10, &[])], &cordon, 1, "a size and nothing else", None).await;
}

#[tokio::test]
async fn says_what_aws_says() {
    let group = asg(3, 1, 10, &[]);
    for (replies, wanted) in [
        (vec![aws_error(400, "Throttling", "Rate exceeded")], "Unavailable"),
        (
            vec![aws_error(403, "SignatureDoesNotMatch", "The request signature")],
            "403 Forbidden: DescribeAutoScalingGroups: SignatureDoesNotMatch",
        ),
        (vec![ok("<html>")], "the answer is no XML"),
        (vec![ok("<A><AutoScalingGroups/></A>")], "there is no group \"checkout\" in this region"),
        (vec![Reply::Status(500, "")], "Unavailable"),
    ] {
        check_aws(&replies, &resize(3, 5), 1, wanted, None).await;
    }
    let denied = "User: arn:aws:iam::1:user/f is not authorized to perform: autoscaling:SetDesiredCapacity";
    for (reply, wanted) in [
        (
            aws_error(400, "ValidationError", "New SetDesiredCapacity value 5 is above max value 4"),
            "refused: 400 Bad Request: SetDesiredCapacity: ValidationError: New",
        ),
        (aws_error(400, "ScalingActivityInProgress", "busy"), "Unavailable"),
        (aws_error(403, "AccessDenied", denied), denied),
        (Reply::Status(500, "oops"), "Unanswered"),
        (Reply::Status(503, ""), "Unavailable"),
    ] {
        check_aws(&[group.clone(), reply], &resize(3, 5), 1, wanted, Some(5)).await;
    }
}

#[tokio::test]
async fn an_aws_group_is_there_when_so_many_instances_serve() {
    let (up, coming) = ("InService", "Pending");
    for (group, action, wanted) in [
        (
            asg(5, 1, 10, &[(up, false), (up, false), (up, false), (coming, false), (coming, false)]),
            resize(3, 5),
            Confirmation::Pending,
        ),
        (asg(5, 1, 10, &[(up, false); 5]), resize(3, 5), Confirmation::Done),
        (
            asg(4, 1, 4, &[(up, false); 4]),
            resize(3, 5),
            Confirmation::Failed("its maximum is 4, and it has 4 instances already".to_owned()),
        ),
        (asg(3, 1, 10, &[(up, false); 3]), resize(3, 5), Confirmation::NeverHeard),
        (asg(3, 1, 10, &[(up, false); 5]), give_back(5, 3), Confirmation::Pending),
        (asg(3, 1, 10, &[(up, false); 3]), give_back(5, 3), Confirmation::Done),
    ] {
        let (server, folder) = (Server::start(&[group]).await, secrets());
        let answer = aws_by_file(&server, &folder).confirm(&action, NOW).await.expect("an answer");
        assert_eq!(answer, wanted, "{action:?}");
    }
}

#[tokio::test]
async fn takes_a_role_by_a_token_of_its_own_and_keeps_it_while_it_lasts() {
    let key = |expiration: &str| {
        ok(format!(
            r#"<R xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><Credentials><AccessKeyId>ASIAX</AccessKeyId>
            <SecretAccessKey>s3cr3t</SecretAccessKey><SessionToken>sess</SessionToken><Expiration>{expiration}</Expiration>
            </Credentials></R>"#
        ))
    };
    let folder = secrets();
    let group = asg(5, 1, 10, &[]);
    let server =
        Server::start(&[key("2023-11-14T22:30:00Z"), group.clone(), group.clone(), key("2023-11-14T23:30:00Z"), group])
            .await;
    let cloud = aws(
        &server,
        AwsCredentials::WebIdentity {
            role_arn: "arn:aws:iam::1:role/f".to_owned(),
            token_file: folder.path().join("jwt"),
            sts_url: format!("{}/sts", server.address),
        },
    );
    // NOW is 22:13:20; the key is not used in its last minute.
    for minutes in [0, 15, 16] {
        let answer = cloud.apply(&resize(3, 5), 1, NOW + Millis::MINUTE * minutes).await;
        assert_eq!(answer.expect("so it is"), Acceptance::Unchanged);
    }
    let got = server.got();
    let paths: Vec<&str> = got.iter().map(|got| got.path.as_str()).collect();
    assert_eq!(paths, ["/sts", "/", "/", "/sts", "/"]);
    let form = text(&got[0]);
    assert!(form.contains("Action=AssumeRoleWithWebIdentity") && form.contains("WebIdentityToken=own.t0k3n"), "{form}");
    assert!(got[0].headers.get("authorization").is_none(), "the token says who we are");
    let authorization = got[1].headers["authorization"].to_str().expect("text");
    assert!(authorization.contains("Credential=ASIAX/20231114/eu-west-1/autoscaling/aws4_request"), "{authorization}");
    assert!(
        authorization.contains("SignedHeaders=content-type;host;x-amz-date;x-amz-security-token"),
        "{authorization}"
    );
    assert_eq!(got[1].headers["x-amz-security-token"], "sess");
}

fn mig(target: u32, none: u32, more: &Value) -> Reply {
    let mut group = json!({"kind": "compute#instanceGroupManager", "targetSize": target, "currentActions": {"none": none},
        "status": {"isStable": target == none}});
    if let (Some(group), Some(more)) = (group.as_object_mut(), more.as_object()) {
        group.extend(more.clone());
    }
    ok(group)
}

#[tokio::test]
async fn resizes_a_group_of_google_once_for_one_action() {
    let folder = secrets();
    let token = ok(json!({"access_token": "t0k3n", "expires_in": 3599, "token_type": "Bearer"}));
    let operation = ok(json!({"kind": "compute#operation", "status": "RUNNING"}));
    let replies = [
        token,
        mig(3, 3, &json!({})),
        operation.clone(),
        mig(3, 3, &json!({})),
        operation,
        mig(5, 4, &json!({})),
        mig(5, 5, &json!({})),
    ];
    let server = Server::start(&replies).await;
    let file = folder.path().join("gcp");
    let key = std::fs::read_to_string(&file).expect("the key").replace("SERVER", &server.address);
    std::fs::write(&file, key).expect("the key");
    let cloud = gcp(&server, GcpCredentials::File(file));
    for attempt in [1, 2] {
        assert_eq!(cloud.apply(&resize(3, 5), attempt, NOW).await.expect("taken"), Acceptance::Accepted);
    }
    assert_eq!(cloud.confirm(&resize(3, 5), NOW).await.expect("an answer"), Confirmation::Pending);
    assert_eq!(cloud.confirm(&resize(3, 5), NOW).await.expect("an answer"), Confirmation::Done);
    let got = server.got();
    let group = "/compute/v1/projects/proj/zones/europe-west1-b/instanceGroupManagers/checkout";
    assert_eq!((got[1].method.as_str(), got[1].path.as_str()), ("GET", group));
    assert_eq!(got[2].method.as_str(), "POST");
    assert!(got[2].path.starts_with(&format!("{group}/resize?size=5&requestId=")), "{}", got[2].path);
    assert_eq!(got[2].path, got[4].path, "one request id for one action");
    assert!(got[1..].iter().all(|got| got.headers["authorization"] == "Bearer t0k3n"));
    // The grant is signed with the account's key.
    let form = text(&got[0]);
    let (_, grant) = form.split_once("assertion=").expect("a grant");
    let parts: Vec<&str> = grant.split('.').collect();
    let decode = |part: &str| URL_SAFE_NO_PAD.decode(part).expect("base64");
    let claims: Value = serde_json::from_slice(&decode(parts[1])).expect("JSON");
    assert_eq!(claims["iss"], "f@p.example");
    assert_eq!(claims["scope"], "https://www.googleapis.com/auth/compute");
    assert_eq!((claims["iat"].as_i64(), claims["exp"].as_i64()), (Some(1_700_000_000), Some(1_700_003_600)));
    let der: String = TEST_KEY.lines().filter(|line| !line.starts_with('-')).collect();
    let pair = RsaKeyPair::from_pkcs8(&BASE64.decode(der).expect("PEM")).expect("a key");
    let public = UnparsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, pair.public_key().as_ref());
    let signed = format!("{}.{}", parts[0], parts[1]);
    public.verify(signed.as_bytes(), &decode(parts[2])).expect("the signature holds");
}

/// What an action comes to at Google, with a token of the metadata service.
async fn check_gcp(replies: &[Reply], name: &str, wanted: &str, calls: usize) {
    let token = ok(json!({"access_token": "t0k3n", "expires_in": 3599}));
    let server = Server::start(&[&[token], replies].concat()).await;
    let settings = GcpMigSettings {
        common: common(),
        project: "proj".to_owned(),
        place: GcpPlace::Region("europe-west1".to_owned()),
        min_size: 1,
        max_size: 8,
        endpoint: Some(server.address.clone()),
        credentials: GcpCredentials::Metadata,
    };
    let groups = gcp::Gcp::new("mig", &settings).expect("right settings").with_metadata(&server.address);
    let cloud = CloudActuator { groups: Groups::Gcp(groups), settings: common() };
    let mut action = resize(3, 5);
    action.target.name = name.to_owned();
    let answer = cloud.apply(&action, 1, NOW).await;
    let words = answer.as_ref().map_or_else(|error| format!("{error:?} {error}"), |taken| format!("{taken:?}"));
    assert!(words.contains(wanted), "{replies:?}: {words}");
    let got = server.got();
    assert_eq!(got.len(), calls, "{got:?}");
    if let Some(first) = got.first() {
        assert!(
            first.path.starts_with("/computeMetadata/v1/instance/service-accounts/default/token?scopes="),
            "{}",
            first.path
        );
        assert_eq!(first.headers["metadata-flavor"], "Google");
    }
}

#[tokio::test]
async fn says_what_google_says() {
    let autoscaled = json!({"status": {"isStable": true, "autoscaler": "https://x/autoscalers/web-scaler"}});
    let error = |code: u16, reason: &str, message: &str| {
        Reply::Status(
            code,
            leak(json!({"error": {"code": code, "message": message, "errors": [{"reason": reason}]}}).to_string()),
        )
    };
    let name = "checkout";
    check_gcp(&[mig(3, 3, &autoscaled)], name, "the autoscaler web-scaler sets its size", 2).await;
    check_gcp(&[mig(8, 8, &json!({}))], name, "Unchanged", 2).await;
    check_gcp(&[error(403, "rateLimitExceeded", "slow down")], name, "Unavailable", 2).await;
    let denied = "Required 'compute.instanceGroupManagers.get' permission";
    check_gcp(&[error(403, "forbidden", denied)], name, denied, 2).await;
    check_gcp(&[mig(3, 3, &json!({})), error(403, "forbidden", denied)], name, "refused: 403", 3).await;
    let failed = ok(json!({"error": {"errors": [{"code": "QUOTA_EXCEEDED", "message": "Quota 'CPUS' exceeded"}]}}));
    check_gcp(&[mig(3, 3, &json!({})), failed], name, "Quota 'CPUS' exceeded", 3).await;
    check_gcp(&[error(401, "authError", "no")], name, "Unavailable", 2).await;
    check_gcp(&[], "../other", "is not the name of an instance group", 0).await;
}

/// Shapes of "Use IMDS" in the EC2 User Guide: a session by PUT, the role's name, its credentials.
#[tokio::test]
async fn takes_the_machines_own_role_by_a_session_of_version_2() {
    let key = json!({"Code": "Success", "LastUpdated": "2023-11-14T21:00:00Z", "Type": "AWS-HMAC", "AccessKeyId": "ASIAM",
        "SecretAccessKey": "s3cr3t", "Token": "sess", "Expiration": "2023-11-15T04:00:00Z"});
    let group = asg(5, 1, 10, &[]);
    let server = Server::start(&[ok("AQAAsession=="), ok("web-role\n"), ok(key), group.clone(), group]).await;
    let settings = AwsAutoscalingSettings {
        common: common(),
        region: "eu-west-1".to_owned(),
        endpoint: Some(format!("{}/", server.address)),
        credentials: AwsCredentials::Metadata,
    };
    let groups = aws::Aws::new("asg", &settings).expect("right settings").with_metadata(&server.address);
    let cloud = CloudActuator { groups: Groups::Aws(groups), settings: common() };
    for _ in 0..2 {
        assert_eq!(cloud.apply(&resize(3, 5), 1, NOW).await.expect("so it is"), Acceptance::Unchanged);
    }
    let got = server.got();
    let asked: Vec<(&str, &str)> = got.iter().map(|got| (got.method.as_str(), got.path.as_str())).collect();
    let folder = "/latest/meta-data/iam/security-credentials/";
    let role = format!("{folder}web-role");
    assert_eq!(asked, [("PUT", "/latest/api/token"), ("GET", folder), ("GET", &role), ("POST", "/"), ("POST", "/")]);
    assert_eq!(got[0].headers["x-aws-ec2-metadata-token-ttl-seconds"], "300");
    for one in &got[1..3] {
        assert_eq!(one.headers["x-aws-ec2-metadata-token"], "AQAAsession==");
    }
    let authorization = got[3].headers["authorization"].to_str().expect("text");
    assert!(authorization.contains("Credential=ASIAM/20231114/eu-west-1/autoscaling/aws4_request"), "{authorization}");
    assert_eq!(got[3].headers["x-amz-security-token"], "sess");
    // A machine without a role, and an address that is no metadata service.
    for (replies, words) in [
        (vec![ok("AQAAsession=="), ok("")], "this machine has no role"),
        (vec![Reply::Status(404, "")], "404"),
        (vec![ok("AQAAsession=="), ok("web-role"), ok("{}")], "its credentials for the role web-role cannot be read"),
    ] {
        let server = Server::start(&replies).await;
        let groups = aws::Aws::new("asg", &settings).expect("right settings").with_metadata(&server.address);
        let cloud = CloudActuator { groups: Groups::Aws(groups), settings: common() };
        let error = cloud.apply(&resize(3, 5), 1, NOW).await.expect_err("nobody gives a key");
        assert!(error.to_string().contains(words) && !error.may_have_worked(), "{error}");
    }
}

/// Shapes of "How to use managed identities on an Azure VM" (its numbers are texts) and of the v2.0 token endpoint of the
/// Microsoft identity platform, with a client assertion.
#[tokio::test]
async fn takes_tokens_of_azure_as_a_machine_and_as_a_workload() {
    let folder = secrets();
    let set = json!({"name": "checkout", "sku": {"name": "Standard_D2s_v5", "capacity": 5}, "etag": "\"7\"",
        "properties": {"provisioningState": "Succeeded"}});
    let machine = json!({"access_token": "m4chine", "client_id": "id", "expires_in": "3599", "expires_on": "1506484173",
        "ext_expires_in": "3599", "not_before": "1506480273", "resource": "https://management.azure.com/",
        "token_type": "Bearer"});
    let server = Server::start(&[ok(machine), ok(&set), ok(&set)]).await;
    let cloud = azure_as(&server, AzureCredentials::Metadata { client_id: Some("id".to_owned()) });
    for _ in 0..2 {
        assert_eq!(cloud.apply(&resize(3, 5), 1, NOW).await.expect("so it is"), Acceptance::Unchanged);
    }
    let got = server.got();
    assert_eq!(got.len(), 3, "the token is kept: {got:?}");
    let (path, query) = got[0].path.split_once('?').expect("a query");
    let query: Vec<(String, String)> = form_urlencoded::parse(query.as_bytes()).into_owned().collect();
    let pair = |name: &str, value: String| (name.to_owned(), value);
    assert_eq!((got[0].method.as_str(), path), ("GET", "/metadata/identity/oauth2/token"));
    let resource = format!("{}/", server.address);
    let wanted =
        [pair("api-version", "2018-02-01".to_owned()), pair("resource", resource), pair("client_id", "id".to_owned())];
    assert_eq!(query, wanted);
    assert_eq!(
        (&got[0].headers["metadata"], &got[1].headers["authorization"]),
        (&"true".parse().expect("text"), &"Bearer m4chine".parse().expect("text"))
    );

    let workload =
        json!({"token_type": "Bearer", "expires_in": 3599, "ext_expires_in": 3599, "access_token": "w0rkload"});
    let server = Server::start(&[ok(workload), ok(&set)]).await;
    let cloud = azure_as(
        &server,
        AzureCredentials::WorkloadIdentity {
            tenant_id: "tenant".to_owned(),
            client_id: "client".to_owned(),
            token_file: folder.path().join("jwt"),
            authority: Some(server.address.clone()),
        },
    );
    assert_eq!(cloud.apply(&resize(3, 5), 1, NOW).await.expect("so it is"), Acceptance::Unchanged);
    let got = server.got();
    assert_eq!((got[0].method.as_str(), got[0].path.as_str()), ("POST", "/tenant/oauth2/v2.0/token"));
    let form: Vec<(String, String)> = form_urlencoded::parse(text(&got[0]).as_bytes()).into_owned().collect();
    let wanted = [
        pair("grant_type", "client_credentials".to_owned()),
        pair("client_id", "client".to_owned()),
        pair("scope", format!("{}/.default", server.address)),
        pair("client_assertion", "own.t0k3n".to_owned()),
        pair("client_assertion_type", "urn:ietf:params:oauth:client-assertion-type:jwt-bearer".to_owned()),
    ];
    assert_eq!(form, wanted);
    assert_eq!(got[1].headers["authorization"], "Bearer w0rkload");
}

#[tokio::test]
async fn patches_a_scale_set_of_azure_as_it_was_read() {
    let set = |capacity: u32, state: &str| {
        let set = json!({"name": "checkout", "sku": {"name": "Standard_D2s_v5", "tier": "Standard", "capacity": capacity},
            "properties": {"provisioningState": state}, "etag": "\"7\""});
        ok(set)
    };
    let folder = secrets();
    let token = ok(json!({"access_token": "t0k3n", "expires_in": 3599}));
    let changed = Reply::Status(412, r#"{"error":{"code":"PreconditionFailed","message":"it has changed"}}"#);
    let server = Server::start(&[
        token,
        set(3, "Succeeded"),
        changed,
        set(4, "Succeeded"),
        Reply::Status(202, ""),
        set(5, "Updating"),
        set(5, "Succeeded"),
        set(3, "Updating"),
        set(5, "Failed"),
    ])
    .await;
    let cloud = azure(&server, &folder);
    let error = cloud.apply(&resize(3, 5), 1, NOW).await.expect_err("somebody changed it meanwhile");
    assert!(error.is_transient() && !error.may_have_worked(), "{error}");
    assert_eq!(cloud.apply(&resize(3, 5), 2, NOW).await.expect("taken"), Acceptance::Accepted);
    assert_eq!(cloud.confirm(&resize(3, 5), NOW).await.expect("an answer"), Confirmation::Pending);
    assert_eq!(cloud.confirm(&resize(3, 5), NOW).await.expect("an answer"), Confirmation::Done);
    assert_eq!(cloud.confirm(&give_back(5, 3), NOW).await.expect("an answer"), Confirmation::Pending);
    let failed = Confirmation::Failed("its provisioning is Failed".to_owned());
    assert_eq!(cloud.confirm(&resize(3, 5), NOW).await.expect("an answer"), failed);
    let got = server.got();
    assert_eq!(got[0].path, "/tenant/oauth2/v2.0/token");
    let form = text(&got[0]);
    assert!(
        form.contains("grant_type=client_credentials&client_id=client&scope=") && form.contains("client_secret=s3cr3t"),
        "{form}"
    );
    let path = "/subscriptions/sub/resourceGroups/rg/providers/Microsoft.Compute/virtualMachineScaleSets/checkout?api-version=2024-07-01";
    for (number, method) in [(1, "GET"), (2, "PATCH"), (3, "GET"), (4, "PATCH")] {
        assert_eq!((got[number].method.as_str(), got[number].path.as_str()), (method, path));
        assert_eq!(got[number].headers["authorization"], "Bearer t0k3n");
    }
    assert_eq!(got[4].headers["if-match"], "\"7\"");
    let body: Value = serde_json::from_slice(&got[4].body).expect("JSON");
    assert_eq!(body, json!({"sku": {"name": "Standard_D2s_v5", "tier": "Standard", "capacity": 5}}));
}

proptest! {
    #[test]
    fn a_size_is_within_the_bounds_and_never_the_other_way(
        wanted in 0_u32..20, min in 0_u32..10, span in 0_u32..10, protected in 0_u32..20, from in 0_u32..20, to in 0_u32..20,
    ) {
        let max = min + span;
        let group = Group {
            name: String::new(), wanted, serving: wanted, is_settled: true, min, max, protected, hindrance: None,
            failure: None, state: Value::Null,
        };
        if let Standing::Due(size) = standing(&group, from, to) {
            if to > from {
                prop_assert!(size > wanted && size <= max && size >= min && size <= to.max(min));
            } else {
                prop_assert!(size < wanted && size >= to && size >= min && size >= protected);
            }
        }
    }
}
