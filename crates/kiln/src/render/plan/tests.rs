//! Plans as text, compared with what is committed in `tests/golden`.

use std::path::PathBuf;

use kiln_model::change::changes;
use kiln_model::fixture::{database, endpoint, generation, image, network, secret, server};
use kiln_model::generation::Content;
use kiln_model::seal::seal;
use kiln_model::spec::image::{Inputs, Step};
use kiln_model::spec::rollout::Strategy;
use kiln_model::spec::{Body, Spec};

use super::*;

/// Compares with the committed text. With `KILN_UPDATE_GOLDEN` set, writes it instead.
fn golden(name: &str, before: Vec<Spec>, after: Vec<Spec>) {
    let before = if before.is_empty() { Content::default() } else { generation(7, before).content };
    let after = seal(after).unwrap();
    let changes = changes(&before, &after);
    let output = |value: &str| Output { value: value.into(), sensitive: false };
    let outputs = BTreeMap::from([
        ("address".to_owned(), output("http://127.0.0.1:8080")),
        ("token".to_owned(), Output { value: serde_json::Value::Null, sensitive: true }),
    ]);
    let parent = (!before.components.is_empty()).then_some(7);
    let view = PlanView {
        stack: &"shop".parse().unwrap(),
        next: parent.unwrap_or(0) + 1,
        parent,
        sides: Sides { before: &before, after: &after, changes: &changes },
        outputs: &outputs,
        builds: true,
    };
    let text = view.render(Palette::plain());
    assert!(view.render(Palette::new(true)).len() >= text.len());
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(format!("tests/golden/{name}.txt"));
    if std::env::var_os("KILN_UPDATE_GOLDEN").is_some() {
        std::fs::write(&path, &text).unwrap();
    }
    let committed = std::fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(text, committed, "{name}: run with KILN_UPDATE_GOLDEN=1");
}

fn page(name: &str, content: &str) -> Spec {
    let mut spec = image(name, "v1");
    if let Body::Image(image) = &mut spec.body {
        image.identity.recipe.steps.push(Step::File {
            path: "/srv/www/index.html".to_owned(),
            content: content.to_owned(),
            owner: None,
            mode: None,
        });
    }
    spec
}

fn shop(release: &str) -> Vec<Spec> {
    let page_text = format!("<html>\n<h1>Shop</h1>\n<p>{release}</p>\n</html>\n");
    vec![
        page("web", &page_text),
        network("front", "10.60.0.0/24"),
        server("api").spec(),
        server("web").replicas(3).connects("api").spec(),
        endpoint("shop", "127.0.0.1:8080", "web"),
    ]
}

#[test]
fn the_first_generation() {
    let mut specs = shop("v1");
    if let Body::Image(image) = &mut specs[0].body {
        image.identity.inputs = Inputs::Unlocked;
    }
    golden("first", Vec::new(), specs);
}

#[test]
fn nothing_to_do() {
    golden("nothing", shop("v1"), shop("v1"));
}

#[test]
fn a_new_release() {
    golden("release", shop("v1"), shop("v2"));
}

#[test]
fn another_range_cascades() {
    let mut after = shop("v1");
    after[1] = network("front", "10.61.0.0/24");
    after[3] = server("web").replicas(5).strategy(Strategy::BlueGreen).connects("api").spec();
    golden("range", shop("v1"), after);
}

#[test]
fn policies_and_what_goes() {
    let mut after = shop("v1");
    after[3] = server("web").replicas(5).spec();
    after[4] = endpoint("shop", "127.0.0.1:9090", "web");
    after.remove(2);
    golden("policy", shop("v1"), after);
}

#[test]
fn a_newer_major_version() {
    let ledger = |version: u32| {
        let mut specs = shop("v1");
        let postgres = database("orders").version(version).replicas(1).spec();
        specs.extend([image("pg", &format!("v{version}")), network("back", "10.61.0.0/24")]);
        specs.extend([secret("orders"), postgres]);
        specs
    };
    golden("major", ledger(15), ledger(17));
}

#[test]
fn everything_goes() {
    golden("destroy", shop("v1"), Vec::new());
}
