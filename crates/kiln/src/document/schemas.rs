//! The schemas in `docs/schemas` are those of the documents that are printed.

use std::path::PathBuf;

use kiln_daemon::api::document::{Drift, Metrics, Status};
use kiln_daemon::api::follows::Following;
use kiln_engine::alarm::AlarmDocument;
use kiln_engine::backup::{BackupView, Backups, Restored, Verification};
use kiln_engine::guard::GuardReport;
use schemars::{JsonSchema, schema_for};

use super::change::{ChangeOutcome, DiffDocument, PlanDocument};
use super::exchange::{ExportDocument, PullDocument, PushDocument};
use super::failure::Failure;
use super::generation::{GenerationDocument, HistoryDocument};
use super::image::{
    ImageDetailDocument, ImagesDocument, LockDocument, ProfileDocument, TestsDocument,
    VerificationDocument,
};
use super::incident::{IncidentDocument, IncidentsDocument};
use super::look::{AcceptanceDocument, AuditDocument, EventsDocument, LogsDocument, TopDocument};
use super::posture::PostureDocument;
use super::small::{
    FmtDocument, FollowsDocument, InitDocument, ResumeDocument, ValidateDocument, VersionDocument,
};
use super::trust::{
    CollectionDocument, ExportedKeyDocument, KeyDocument, KeysDocument, RevocationDocument,
};

/// Compares a schema with the committed one. With `KILN_UPDATE_GOLDEN` set, writes it instead.
fn check<T: JsonSchema>(name: &str) {
    let mut text = serde_json::to_string_pretty(&schema_for!(T)).unwrap();
    text.push('\n');
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("../../docs/schemas")
        .join(format!("{name}.json"));
    if std::env::var_os("KILN_UPDATE_GOLDEN").is_some() {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, &text).unwrap();
    }
    let committed = std::fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(text, committed, "docs/schemas/{name}.json: run with KILN_UPDATE_GOLDEN=1");
}

#[test]
fn committed_schemas_are_those_of_the_documents() {
    check::<AcceptanceDocument>("acceptance");
    check::<AlarmDocument>("alarm");
    check::<PostureDocument>("audit");
    check::<BackupView>("backup");
    check::<Backups>("backups");
    check::<Verification>("backups-verification");
    check::<ChangeOutcome>("change");
    check::<CollectionDocument>("collection");
    check::<DiffDocument>("diff");
    check::<Drift>("drift");
    check::<EventsDocument>("events");
    check::<AuditDocument>("events-verification");
    check::<ExportDocument>("export");
    check::<ExportedKeyDocument>("exported-key");
    check::<Failure>("failure");
    check::<FmtDocument>("fmt");
    check::<Following>("following");
    check::<FollowsDocument>("follows");
    check::<GenerationDocument>("generation");
    check::<GuardReport>("guard");
    check::<HistoryDocument>("history");
    check::<ImageDetailDocument>("image");
    check::<ImagesDocument>("images");
    check::<IncidentDocument>("incident");
    check::<IncidentsDocument>("incidents");
    check::<InitDocument>("init");
    check::<KeyDocument>("key");
    check::<KeysDocument>("keys");
    check::<LockDocument>("lock");
    check::<LogsDocument>("logs");
    check::<Metrics>("metrics");
    check::<PlanDocument>("plan");
    check::<ProfileDocument>("profile");
    check::<PullDocument>("pull");
    check::<PushDocument>("push");
    check::<Restored>("restored");
    check::<ResumeDocument>("resume");
    check::<RevocationDocument>("revocation");
    check::<Status>("status");
    check::<TestsDocument>("tests");
    check::<TopDocument>("top");
    check::<ValidateDocument>("validate");
    check::<VerificationDocument>("verification");
    check::<VersionDocument>("version");
}
