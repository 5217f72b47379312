//! Tests of the image that the Dockerfile builds from a prebuilt static binary.

use std::fs;
use std::path::{Path, PathBuf};

use crate::engine::{check_can_run_containers, docker};

/// Returns the path of the static binary that `.ci/run` builds and the Dockerfile copies.
fn static_binary() -> PathBuf {
    let architecture = if cfg!(target_arch = "x86_64") { "amd64" } else { "arm64" };
    Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("prebuilt/linux/{architecture}/leaderrun"))
}

fn check_can_build_image() -> Result<(), String> {
    check_can_run_containers()?;
    let binary = static_binary();
    if binary.exists() { Ok(()) } else { Err(format!("no {}", binary.display())) }
}

#[testkit::test(requires = check_can_build_image())]
fn the_image_has_one_layer_and_runs_without_root() {
    // The build context contains only the files that the build needs.
    let context = testkit::scratch::directory("image");
    let architecture = static_binary().parent().and_then(Path::file_name).expect("the directory has a name").to_owned();
    let directory = context.join("prebuilt/linux").join(&architecture);
    fs::create_dir_all(&directory).expect("the directory can be created");
    fs::copy(static_binary(), directory.join("leaderrun")).expect("the binary can be copied");
    let dockerfile = Path::new(env!("CARGO_MANIFEST_DIR")).join("Dockerfile");
    fs::copy(dockerfile, context.join("Dockerfile")).expect("the Dockerfile can be copied");
    let build_argument = format!("TARGETARCH={}", architecture.display());
    let context = context.to_str().expect("the path is valid UTF-8");
    let tag = format!("leaderrun-test-image:{}", std::process::id());
    docker(&["build", "--quiet", "--target", "prebuilt", "--build-arg", &build_argument, "--tag", &tag, context]);

    let version = docker(&["run", "--rm", &tag, "--version"]);
    assert_eq!(version, format!("leaderrun {}", env!("CARGO_PKG_VERSION")));
    let inspect = |format: &str| docker(&["image", "inspect", "--format", format, &tag]);
    assert_eq!(inspect("{{.Config.User}}"), "65532:65532");
    assert_eq!(inspect("{{len .RootFS.Layers}}"), "1");
    for label in ["title", "description", "source", "licenses"] {
        let format = format!("{{{{index .Config.Labels \"org.opencontainers.image.{label}\"}}}}");
        assert!(!inspect(&format).is_empty(), "{label}");
    }
    docker(&["image", "rm", &tag]);
}
