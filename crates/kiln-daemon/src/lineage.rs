//! Which state of a database's data belongs to a generation: where `rollback --with-data` goes.
//!
//! A generation's state is the one at its end, when the next one that served took over. Where the
//! data's branch was left just then, that is where the branch ends, and it is gone on with. Where
//! the next one brought a new volume, the one before it is that state, as long as it is kept.

use kiln_engine::journal::{Entry, Event};
use kiln_model::data::{Branch, BranchOrigin};
use kiln_model::generation::Content;
use kiln_model::name::{ComponentId, InstanceId};
use kiln_model::quantity::Timestamp;

/// A generation that served, or serves.
#[derive(Debug, Clone)]
pub struct Reign {
    /// Its number.
    pub number: u64,
    /// What it holds.
    pub content: Content,
    /// When it was decided on.
    pub committed: Timestamp,
    /// When all of it served.
    pub active: Timestamp,
}

impl Reign {
    /// The generation, if it ever served; `entries` is the stack's journal.
    pub fn of(number: u64, content: &Content, entries: &[Entry]) -> Option<Self> {
        let at = |wanted: &dyn Fn(&Event) -> bool| {
            entries.iter().find(|entry| wanted(&entry.event)).map(|entry| entry.at)
        };
        let committed = at(
            &|event| matches!(event, Event::Committed { generation, .. } if *generation == number),
        )?;
        let active =
            at(&|event| matches!(event, Event::Active { generation } if *generation == number))?;
        Some(Self { number, content: content.clone(), committed, active })
    }
}

/// A volume of a database that is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kept {
    /// Its name.
    pub volume: InstanceId,
    /// The number of its branch.
    pub branch: u64,
    /// When writes went on to another.
    pub left_at: Option<Timestamp>,
}

/// The state at the end of a generation is not there any more.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the data of {database} as it was at the end of generation {generation} is not kept")]
pub struct NotKept {
    /// The database.
    pub database: ComponentId,
    /// The generation.
    pub generation: u64,
    /// The generations whose state is.
    pub kept: Vec<u64>,
}

impl NotKept {
    /// The way out.
    pub fn help(&self) -> String {
        let kept: Vec<String> = self.kept.iter().map(ToString::to_string).collect();
        match &kept[..] {
            [] => "no earlier state of it is kept; without `--with-data` the data stays as it is \
                   now"
            .to_owned(),
            kept => format!(
                "kept is the end of {} {}; without `--with-data` the data stays as it is now",
                if kept.len() == 1 { "generation" } else { "generations" },
                kept.join(", ")
            ),
        }
    }
}

/// The branch in which a database's data is as it was at the end of the generation `goal`. `reigns`
/// are all that served, oldest first, and the last of them serves now.
pub fn state_of(
    database: &ComponentId,
    goal: u64,
    reigns: &[Reign],
    volumes: &[Kept],
) -> Result<Branch, NotKept> {
    if let Some(branch) = found(database, goal, reigns, volumes) {
        return Ok(branch);
    }
    let has = |reign: &&Reign| {
        reign.content.components.contains_key(database)
            && found(database, reign.number, reigns, volumes).is_some()
    };
    let serves = reigns.last().map(|reign| reign.number);
    let kept = reigns.iter().filter(|reign| Some(reign.number) != serves).filter(has);
    let kept = kept.map(|reign| reign.number).collect();
    Err(NotKept { database: database.clone(), generation: goal, kept })
}

fn found(database: &ComponentId, goal: u64, reigns: &[Reign], volumes: &[Kept]) -> Option<Branch> {
    let index = reigns.iter().position(|reign| reign.number == goal)?;
    let branch = reigns[index].content.branch(database);
    let later = &reigns[index + 1..];
    // What was removed for good is no state of anything.
    let discarded = |reign: &Reign| {
        let later = reign.content.branch(database);
        later.from == BranchOrigin::Discarded && later != branch
    };
    if later.iter().any(discarded) {
        return None;
    }
    if later.iter().all(|reign| reign.content.branch(database) != branch) {
        return Some(branch);
    }
    // The last one that it went over from while the next generation was brought about.
    let next = later.first()?;
    let then = |kept: &&Kept| {
        kept.branch == branch.number
            && kept.left_at.is_some_and(|at| next.committed <= at && at <= next.active)
    };
    let kept = volumes.iter().filter(then).max_by_key(|kept| kept.left_at)?;
    let volume = kept.volume.clone();
    Some(Branch::new(BranchOrigin::Volume { volume, generation: goal }))
}

#[cfg(test)]
mod tests {
    use kiln_model::fixture::{database, generation, image, network, secret};

    use super::*;

    fn orders() -> ComponentId {
        "database.orders".parse().unwrap()
    }

    fn reign(number: u64, branch: Option<Branch>) -> Reign {
        let specs = vec![
            image("pg", "v1"),
            network("back", "10.0.0.0/24"),
            secret("orders"),
            database("orders").spec(),
        ];
        let mut content = generation(number, specs).content;
        content.data.extend(branch.map(|branch| (orders(), branch)));
        let at = |offset| Timestamp(number * 100 + offset);
        Reign { number, content, committed: at(0), active: at(10) }
    }

    fn kept(name: &str, branch: u64, left_at: Option<u64>) -> Kept {
        Kept { volume: name.parse().unwrap(), branch, left_at: left_at.map(Timestamp) }
    }

    fn from(volume: &str, generation: u64) -> Branch {
        Branch::new(BranchOrigin::Volume { volume: volume.parse().unwrap(), generation })
    }

    #[test]
    fn the_volume_that_the_next_one_left_is_the_state() {
        let reigns = [reign(1, None), reign(2, None), reign(3, None)];
        let volumes = [kept("orders-1", 0, Some(205)), kept("orders-2", 0, None)];
        let state = |goal| state_of(&orders(), goal, &reigns, &volumes);
        assert_eq!(state(1), Ok(from("orders-1", 1)));
        assert_eq!(state(3), Ok(Branch::first()), "it serves");
        let none = state(2).unwrap_err();
        assert_eq!((none.generation, &none.kept[..]), (2, &[1][..]));
        assert_eq!(
            none.help(),
            "kept is the end of generation 1; without `--with-data` the data stays as it is now"
        );
        // Left at another time, it is the state of no generation's end.
        let volumes = [kept("orders-1", 0, Some(250)), kept("orders-2", 0, None)];
        assert!(state_of(&orders(), 1, &reigns, &volumes).unwrap_err().kept.is_empty());
    }

    #[test]
    fn what_was_removed_for_good_is_no_state() {
        let gone = Branch { number: 2, from: BranchOrigin::Discarded };
        let reigns = [reign(1, None), reign(2, Some(gone.clone())), reign(3, Some(gone.clone()))];
        let state = |goal| state_of(&orders(), goal, &reigns, &[kept("orders-3", 2, None)]);
        assert!(state(1).is_err());
        assert_eq!(state(3), Ok(gone));
    }

    #[test]
    fn a_branch_that_was_left_is_gone_on_with() {
        let back = Branch { number: 3, ..from("orders-1", 1) };
        let reigns = [reign(1, None), reign(2, None), reign(3, Some(back.clone()))];
        let volumes = [kept("orders-1", 0, Some(205)), kept("orders-2", 0, Some(305))];
        let state = |goal| state_of(&orders(), goal, &reigns, &volumes);
        assert_eq!(state(2), Ok(Branch::first()));
        assert_eq!(state(3), Ok(back.clone()));
        assert_eq!(state(1), Ok(from("orders-1", 1)));
        // Forward again, and both ends are there.
        let reigns = [&reigns[..], &[reign(4, None)]].concat();
        let volumes = [kept("orders-2", 0, None), kept("orders-3", 3, Some(405))];
        let state = |goal| state_of(&orders(), goal, &reigns, &volumes);
        assert_eq!(state(3), Ok(back));
        assert!(state(2).is_err(), "its branch has gone on since");
    }
}
