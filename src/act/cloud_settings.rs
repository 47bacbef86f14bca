//! What the configuration says of clouds: which groups, and where credentials come from. It is read in every build, so that
//! one without the feature `cloud` can say what it lacks.

use std::path::PathBuf;

use super::template::TextTemplate;
use crate::model::Millis;

/// How a request to a cloud shows who sends it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CloudAuth {
    /// AWS Signature Version 4.
    AwsSigv4 {
        /// The region.
        region: String,
        /// The service's name in signatures: `autoscaling`, `execute-api`.
        service: String,
        /// Who we are.
        credentials: AwsCredentials,
    },
    /// A token of Google Cloud.
    Gcp {
        /// Who we are.
        credentials: GcpCredentials,
        /// What the token is for.
        scopes: Vec<String>,
    },
    /// A token of Azure.
    Azure {
        /// Who we are.
        credentials: AzureCredentials,
        /// What the token is for: `https://management.azure.com/.default`.
        scope: String,
    },
}

/// What all clouds have in common.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CloudSettings {
    /// Which group is meant: by default `{target.name}`.
    pub group: TextTemplate,
    /// How long one call may take.
    pub timeout: Millis,
    /// How often an action is tried in all.
    pub attempts_max: u32,
    /// How long to wait until the instances serve.
    pub confirm_within: Millis,
    /// Whether loopback addresses may be called, for tests and emulators.
    pub allow_local: bool,
}

/// Which groups, and who we are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AwsAutoscalingSettings {
    /// What all clouds have in common.
    pub common: CloudSettings,
    /// The region: `eu-west-1`.
    pub region: String,
    /// Where the API is; the region's own where absent.
    pub endpoint: Option<String>,
    /// Who we are.
    pub credentials: AwsCredentials,
}

/// Which groups, and who we are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GcpMigSettings {
    /// What all clouds have in common.
    pub common: CloudSettings,
    /// The project.
    pub project: String,
    /// Where in it the groups are.
    pub place: GcpPlace,
    /// A group is never made smaller than this: Google knows no bound of its own.
    pub min_size: u32,
    /// A group is never made larger than this.
    pub max_size: u32,
    /// Where the API is; Google's own where absent.
    pub endpoint: Option<String>,
    /// Who we are.
    pub credentials: GcpCredentials,
}

/// Where groups are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GcpPlace {
    /// In one zone: `europe-west1-b`.
    Zone(String),
    /// In all zones of a region: `europe-west1`.
    Region(String),
}

/// Which scale sets, and who we are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AzureVmssSettings {
    /// What all clouds have in common.
    pub common: CloudSettings,
    /// The subscription.
    pub subscription_id: String,
    /// The resource group.
    pub resource_group: String,
    /// A scale set is never made smaller than this: Azure knows no bound of its own.
    pub min_size: u32,
    /// A scale set is never made larger than this.
    pub max_size: u32,
    /// Where the API is; Azure's public one where absent.
    pub endpoint: Option<String>,
    /// Who we are.
    pub credentials: AzureCredentials,
}

/// Where AWS credentials come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AwsCredentials {
    /// A file as the AWS tools have it: sections with `aws_access_key_id`, `aws_secret_access_key`, `aws_session_token`.
    File {
        /// The file.
        path: PathBuf,
        /// The section.
        profile: String,
    },
    /// A role taken by a token of one's own, as pods of EKS do (STS `AssumeRoleWithWebIdentity`).
    WebIdentity {
        /// The role.
        role_arn: String,
        /// The file of the token.
        token_file: PathBuf,
        /// Where STS is.
        sts_url: String,
    },
    /// The machine's metadata service, version 2.
    Metadata,
}

/// Where Google Cloud credentials come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GcpCredentials {
    /// A service account's key in JSON.
    File(PathBuf),
    /// The machine's metadata service.
    Metadata,
}

/// Where Azure credentials come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AzureCredentials {
    /// An application and its secret.
    ClientSecret {
        /// Of the directory.
        tenant_id: String,
        /// Of the application.
        client_id: String,
        /// The file of the secret.
        client_secret_file: PathBuf,
        /// Who gives tokens; Azure's own where absent.
        authority: Option<String>,
    },
    /// An application that trusts a token of one's own, as pods of AKS do.
    WorkloadIdentity {
        /// Of the directory.
        tenant_id: String,
        /// Of the application.
        client_id: String,
        /// The file of the token.
        token_file: PathBuf,
        /// Who gives tokens; Azure's own where absent.
        authority: Option<String>,
    },
    /// The machine's metadata service: a managed identity.
    Metadata {
        /// Which, where the machine has several.
        client_id: Option<String>,
    },
}
