//! The generated structs and services are what `proto/*.proto` says.

use std::path::Path;

/// Generates the structs of one schema, and its services where it has some.
fn generate(schema: &str) -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("proto");
    let out = tempfile::tempdir().expect("a temporary folder can be made");
    let files = protox::compile([format!("{schema}.proto")], [root]).expect("the schema is valid");
    let package = files.file[0].package().to_owned();
    let mut config = prost_build::Config::new();
    config.service_generator(tonic_prost_build::configure().build_transport(false).service_generator());
    config.out_dir(out.path()).compile_fds(files).expect("the schema has a form in Rust");
    std::fs::read_to_string(out.path().join(format!("{package}.rs"))).expect("the generator names files by package")
}

#[test]
fn generated_structs_follow_the_schema() {
    for (schema, folder) in [
        ("remote_write_v1", "src/ingest/proto"),
        ("remote_write_v2", "src/ingest/proto"),
        ("externalscaler", "src/api/keda"),
    ] {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("{folder}/{schema}.rs"));
        let fresh = generate(schema);
        if std::env::var_os("UPDATE").is_some() {
            std::fs::write(&path, &fresh).expect("the source tree can be written");
        }
        let committed = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(committed == fresh, "{} is out of date: UPDATE=1 cargo test --test it proto", path.display());
    }
}
