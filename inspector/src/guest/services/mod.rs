//! What starts by itself: systemd units and timers, init scripts, upstart jobs, cron.

mod cron;
mod scripts;
mod systemd;

use super::Scope;
use crate::error::Result;
use crate::report::Services;

/// Units and scripts that are reported.
const UNITS_MAX: usize = 20_000;

pub(super) fn read(scope: &mut Scope<'_>) -> Result<Services> {
    let mut units = systemd::units(scope);
    // systemd starts init scripts too, where no unit has their name.
    let scripts = scripts::services(scope);
    let covered: Vec<_> = scripts
        .into_iter()
        .filter(|script| {
            let unit = format!("{}.service", script.name);
            !units.iter().any(|known| known.name == unit)
        })
        .collect();
    units.extend(covered);
    if units.len() > UNITS_MAX {
        scope.warn("over_budget", "", format!("more than {UNITS_MAX} services"));
        units.truncate(UNITS_MAX);
    }
    units.sort_unstable();
    let mut cron = cron::entries(scope);
    cron.sort_unstable();
    Ok(Services { units, cron })
}
