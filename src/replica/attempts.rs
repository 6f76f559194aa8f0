//! Planning again without the files that turned out damaged or gone, until a plan works or none is left.

use super::apply::{Fault, Outcome};
use super::poll::{self, Cancelled};
use super::{Excluded, FileInfo, Plan, Replica, Target};
use crate::error::{Error, Kind, Result};
use crate::ltx::{Header, Txid};

/// Plans for one target at most. Each but the first does without one more file, or follows a new listing.
const PLANS_MAX: usize = 256;

/// The first file that failed, which is named if no plan is left, and how many did.
struct Damage {
    file: FileInfo,
    error: Error,
    files: usize,
}

/// Runs `attempt` with a plan and the header of its last file, which says what the database will be.
///
/// # Errors
/// Those of planning and of `attempt`. When no plan is left: the error of the first file that failed, with its TXIDs.
pub(super) fn with_plans<T>(
    replica: &Replica,
    target: Target,
    cancelled: Cancelled<'_>,
    mut attempt: impl FnMut(&Plan, &Header) -> Outcome<T>,
) -> Result<T> {
    let mut excluded = Excluded::new();
    let mut missing = Excluded::new();
    let mut damage: Option<Damage> = None;
    let mut due: Option<Txid> = None;
    for _ in 0..PLANS_MAX {
        let plan = match plan(replica, target, &excluded, cancelled) {
            // What was the newest state once must not silently become an earlier one.
            Ok(plan) if due.is_none_or(|due| plan.txid() >= due) => plan,
            Ok(plan) => return Err(no_plan_left(damage, &format!("without it only {} is", plan.txid()))),
            Err(error) if damage.is_some() && error.kind() == Kind::NotFound => {
                return Err(no_plan_left(damage, &error.to_string()));
            }
            Err(error) => return Err(error),
        };
        due.get_or_insert(plan.txid());
        let (number, error) = match header(replica, &plan, cancelled).and_then(|header| attempt(&plan, &header)) {
            Ok(done) => return Ok(done),
            Err(Fault::Other(error)) => return Err(error),
            Err(Fault::File(number, error)) => (number, error),
        };
        let Some(file) = plan.files().get(number) else { return Err(Error::bug("a fault of no file of the plan")) };
        match error.kind() {
            Kind::Corrupt => excluded.insert(file.key.clone()),
            // It may have moved to another level since it was listed: the next listing tells. If it is still listed
            // then, and still not there, it is done without.
            Kind::NotFound | Kind::Conflict if missing.insert(file.key.clone()) => true,
            Kind::NotFound | Kind::Conflict => excluded.insert(file.key.clone()),
            _ => return Err(error.context(&file.key)),
        };
        match &mut damage {
            Some(damage) => damage.files += 1,
            None => damage = Some(Damage { file: file.clone(), error, files: 1 }),
        }
    }
    Err(no_plan_left(damage, "too many files are damaged or change all the time"))
}

fn plan(replica: &Replica, target: Target, excluded: &Excluded, cancelled: Cancelled<'_>) -> Result<Plan> {
    let (replica, excluded) = (replica.clone(), excluded.clone());
    poll::run(cancelled, move || replica.plan_without(target, &excluded))
}

/// The header of the plan's last file.
fn header(replica: &Replica, plan: &Plan, cancelled: Cancelled<'_>) -> Outcome<Header> {
    let number = plan.files().len().saturating_sub(1);
    let Some(file) = plan.files().last().cloned() else { return Err(Error::bug("an empty plan").into()) };
    let replica = replica.clone();
    poll::run(cancelled, move || replica.header(&file)).map_err(|error| match error.kind() {
        Kind::Interrupted => Fault::Other(error),
        _ => Fault::File(number, error),
    })
}

fn no_plan_left(damage: Option<Damage>, why: &str) -> Error {
    let Some(Damage { file, error, files }) = damage else { return Error::bug("no plan is left, and no file failed") };
    let others = if files > 1 { format!(" and {} other files", files - 1) } else { String::new() };
    let message = format!(
        "{}: {error} (TXIDs {}){others}; no other file covers what it holds: {why}. An earlier state can be restored \
         by its TXID or time",
        file.key, file.txids
    );
    Error::new(error.kind(), message)
}
