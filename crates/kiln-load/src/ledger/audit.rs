//! The table that clients write to.

use super::writer::chain;
use super::{PATIENCE, Plan, connect};

/// Who took a row: the timeline, which goes on with each promotion, and the name of the instance or,
/// where it is reached over TCP, its port.
const TAKER: &str = "substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8) || '/' || \
                     coalesce(inet_server_port()::text, current_setting('cluster_name'))";

/// A row as it is found.
#[derive(Debug, Clone)]
pub(super) struct Row {
    pub(super) client: i32,
    pub(super) n: i64,
    pub(super) sum: String,
    pub(super) taken_by: String,
}

pub(super) async fn make_table(plan: &Plan) -> Result<(), String> {
    let table = format!(
        "CREATE TABLE IF NOT EXISTS ledger (id bigserial, client int, n bigint, sum text, \
         ballast text, taken_by text DEFAULT {TAKER}, PRIMARY KEY (client, n)); \
         ALTER TABLE ledger ALTER ballast SET STORAGE EXTERNAL"
    );
    let making = async { connect(&plan.parameters).await?.batch_execute(&table).await };
    let made = tokio::time::timeout(PATIENCE, making).await;
    let made = made.map_err(|_| "the table is not made in time".to_owned())?;
    made.map_err(|error| format!("the table cannot be made: {}", chain(&error)))
}

/// All rows in the order in which they were written.
pub(super) async fn read(plan: &Plan) -> Result<Vec<Row>, String> {
    let question = "SELECT client, n, sum, taken_by FROM ledger ORDER BY id";
    let reading = async { connect(&plan.parameters).await?.query(question, &[]).await };
    let rows = tokio::time::timeout(PATIENCE, reading).await;
    let rows = rows.map_err(|_| "the table is not read in time".to_owned())?;
    let rows = rows.map_err(|error| format!("the table cannot be read: {}", chain(&error)))?;
    let row = |row: &tokio_postgres::Row| Row {
        client: row.get(0),
        n: row.get(1),
        sum: row.get(2),
        taken_by: row.get(3),
    };
    Ok(rows.iter().map(row).collect())
}
