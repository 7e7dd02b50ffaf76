//! The system calls that a child may make. Any other kills it.

use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule,
};
use std::collections::BTreeMap;

/// Reading and answering, on files that are open already.
const READ_AND_WRITE: [i64; 5] = [
    libc::SYS_read,
    libc::SYS_pread64,
    libc::SYS_write,
    libc::SYS_lseek,
    libc::SYS_close,
];

/// What the allocator, the clock, hash seeds and the end of a process need.
const RUNTIME: [i64; 14] = [
    libc::SYS_brk,
    libc::SYS_munmap,
    libc::SYS_mremap,
    libc::SYS_madvise,
    libc::SYS_futex,
    libc::SYS_clock_gettime,
    libc::SYS_getrandom,
    libc::SYS_sigaltstack,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_restart_syscall,
    libc::SYS_exit,
    libc::SYS_exit_group,
];

/// Builds the filter. `abort` of the C library, for a failed allocation, sends a signal to `pid`,
/// which is this process itself; to nobody else.
pub(super) fn filter(pid: u32) -> Result<BpfProgram, String> {
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> = READ_AND_WRITE
        .into_iter()
        .chain(RUNTIME)
        .chain([libc::SYS_getpid, libc::SYS_gettid])
        .map(|call| (call, Vec::new()))
        .collect();
    let prot_exec = u64::try_from(libc::PROT_EXEC).map_err(|e| e.to_string())?;
    // No memory becomes code.
    let plain_memory = || rule(2, SeccompCmpOp::MaskedEq(prot_exec), 0);
    rules.insert(libc::SYS_mmap, vec![plain_memory()?]);
    rules.insert(libc::SYS_mprotect, vec![plain_memory()?]);
    rules.insert(
        libc::SYS_tgkill,
        vec![rule(0, SeccompCmpOp::Eq, u64::from(pid))?],
    );
    // Debug builds of std ask whether what they close is open.
    let get_flags = u64::try_from(libc::F_GETFD).map_err(|e| e.to_string())?;
    rules.insert(libc::SYS_fcntl, vec![rule(1, SeccompCmpOp::Eq, get_flags)?]);
    let arch = std::env::consts::ARCH
        .try_into()
        .map_err(|e: seccompiler::BackendError| e.to_string())?;
    SeccompFilter::new(
        rules,
        SeccompAction::KillProcess,
        SeccompAction::Allow,
        arch,
    )
    .and_then(TryInto::try_into)
    .map_err(|e| e.to_string())
}

fn rule(argument: u8, operator: SeccompCmpOp, value: u64) -> Result<SeccompRule, String> {
    SeccompCondition::new(argument, SeccompCmpArgLen::Dword, operator, value)
        .and_then(|condition| SeccompRule::new(vec![condition]))
        .map_err(|e| e.to_string())
}
