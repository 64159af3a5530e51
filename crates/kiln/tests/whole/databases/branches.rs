//! Data that goes back with a generation, and forward again.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio_postgres::{Client, NoTls};

use super::{PATIENCE, parameters, stack};
use crate::site::{Site, site_or_skip};

async fn connect(site: &Site) -> Result<Client, tokio_postgres::Error> {
    let (client, connection) = tokio_postgres::connect(&parameters(site), NoTls).await?;
    tokio::spawn(async move { drop(connection.await) });
    Ok(client)
}

/// What stands in the book of one who writes nothing meanwhile.
fn texts(site: &Site, runtime: &tokio::runtime::Runtime) -> Vec<String> {
    runtime.block_on(within(async {
        let client = connect(site).await.unwrap();
        let rows = client.query("SELECT said FROM notes ORDER BY said", &[]).await.unwrap();
        rows.iter().map(|row| row.get(0)).collect()
    }))
}

/// What comes of it, unless it takes too long.
async fn within<T>(it: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, it).await.expect("an answer in time")
}

#[test]
fn data_goes_back_with_a_generation_and_forward_again_and_nothing_is_lost() {
    let site = site_or_skip!("data_goes_back_with_a_generation_and_forward_again");
    let runtime = tokio::runtime::Builder::new_multi_thread();
    let runtime = { runtime }.worker_threads(1).enable_all().build().unwrap();
    let note = |said: &str| {
        runtime.block_on(within(async {
            let client = connect(&site).await.unwrap();
            client.execute("INSERT INTO notes VALUES ($1)", &[&said]).await.unwrap();
        }));
    };
    site.write(&stack(4, 0));
    site.must(&["apply", "--yes"]);
    // It is there all the time, and is told of no error.
    let asks = runtime.block_on(within(async {
        let client = connect(&site).await.unwrap();
        client.batch_execute("CREATE TABLE notes (said text)").await.unwrap();
        client
    }));
    let over = Arc::new(AtomicBool::new(false));
    let asking = runtime.spawn({
        let over = over.clone();
        async move {
            let mut answers = 0_u32;
            while !over.load(Ordering::SeqCst) {
                within(asks.query("SELECT count(*) FROM notes", &[])).await.unwrap();
                answers += 1;
            }
            answers
        }
    });
    note("in the first");
    site.write(&stack(5, 1));
    site.must(&["apply", "--yes"]);
    note("in the second");
    let all = ["in the first", "in the second"];
    assert_eq!(texts(&site, &runtime), all);

    site.must(&["rollback", "1", "--with-data", "--yes"]);
    assert_eq!(texts(&site, &runtime), all[..1]);
    note("in the third");
    site.must(&["rollback", "2", "--with-data", "--yes"]);
    assert_eq!(texts(&site, &runtime), all);
    assert_eq!(site.component("database", "ledger")["replicas"]["ready"], 2);
    site.must(&["rollback", "3", "--with-data", "--yes"]);
    assert_eq!(texts(&site, &runtime), ["in the first", "in the third"]);
    // Without it the data stays, and what is not kept is named.
    site.must(&["rollback", "2", "--yes"]);
    assert_eq!(texts(&site, &runtime), ["in the first", "in the third"]);
    let refused = site.run(&["rollback", "4", "--with-data", "--yes"]);
    assert_eq!(refused.status.code(), Some(0), "the end of the first branch is kept");
    assert_eq!(texts(&site, &runtime), all);
    let refused = site.run(&["rollback", "1", "--with-data", "--yes"]);
    let told = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert_eq!(refused.status.code(), Some(2), "{told}");
    assert!(told.contains("at the end of generation 1 is not kept"), "{told}");

    over.store(true, Ordering::SeqCst);
    println!("{} questions answered", runtime.block_on(asking).unwrap());
    site.must(&["destroy", "--yes"]);
}

#[test]
fn data_outlives_the_stack_and_goes_only_where_that_is_said() {
    let site = site_or_skip!("data_outlives_the_stack_and_goes_only_where_that_is_said");
    let runtime = tokio::runtime::Builder::new_multi_thread();
    let runtime = { runtime }.worker_threads(1).enable_all().build().unwrap();
    let run = |statement: &str| {
        runtime.block_on(within(async {
            connect(&site).await.unwrap().batch_execute(statement).await
        }))
    };
    let begin = "CREATE TABLE notes (said text); INSERT INTO notes VALUES ('one')";
    site.write(&stack(4, 0));
    site.must(&["apply", "--yes"]);
    run(begin).unwrap();
    site.must(&["destroy", "--yes"]);
    site.must(&["apply", "--yes"]);
    assert_eq!(texts(&site, &runtime), ["one"]);

    site.must(&["destroy", "--with-data", "--yes"]);
    let volumes = std::fs::read_dir(site.root().join("volumes"));
    assert_eq!(volumes.map(Iterator::count).unwrap_or_default(), 0, "no data is left");
    site.must(&["apply", "--yes"]);
    run(begin).expect("it begins anew");
    // That it was said once is not said of what has been written since.
    site.must(&["destroy", "--yes"]);
    site.must(&["apply", "--yes"]);
    assert_eq!(texts(&site, &runtime), ["one"]);
    site.must(&["destroy", "--yes"]);
}
