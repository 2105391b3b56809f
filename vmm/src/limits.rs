//! Limits of this crate's queues, buffers and files. Those of guest memory are in [`layout`](crate::mem::layout),
//! and those of the log, the channel and the replication in `logchan::limits` and `replication::limits`.

/// Passages of each kind that a trace keeps.
pub const TRACE_MAX: usize = 1 << 17;

/// Most byte strings that wait in a queue: the boot messages of a Linux kernel, or what a frame trace prints
/// in some milliseconds. A console line is at most 256 bytes, so that a queue of them takes 256 KiB.
pub const WRITES_WAITING_MAX: usize = 1024;

/// Most inputs that enter at one position; the rest waits for the next position. This bounds a timer that
/// is due again as soon as it has fired.
pub const INPUTS_MAX: usize = 1024;

/// Most clients of a control socket whose requests are arriving.
pub const CONTROL_CLIENTS_MAX: usize = 16;

/// Most control sockets that `understudy list` asks.
pub const LISTED_MAX: usize = 256;

/// Most events that wait for the control thread, which needs microseconds for one.
pub const EVENTS_WAITING_MAX: usize = 256;

/// Most events that a process keeps for `understudy events`.
pub const EVENTS_KEPT_MAX: usize = 1024;

/// Most bytes of the events that a process keeps. One has some hundred; a divergence has some thousand.
pub const EVENTS_BYTES_MAX: usize = 1 << 20;

/// Most clients of a control socket that read events.
pub const EVENT_FOLLOWERS_MAX: usize = 16;

/// Most VMs that `understudy watch` shows.
pub const WATCHED_VMS_MAX: usize = 64;

/// Most answers and events that wait until `understudy watch` takes them. The threads that ask wait then.
pub const WATCH_UPDATES_MAX: usize = 1024;

/// Most events of a VM that `understudy watch` keeps: more than a terminal has lines.
pub const WATCH_EVENTS_MAX: usize = 200;

/// Most samples of a VM that `understudy watch` keeps, one a second: more than a terminal has columns.
pub const WATCH_SAMPLES_MAX: usize = 600;

/// Most lines of a demonstration that wait for the end of `--watch`.
pub const DEMO_LINES_MAX: usize = 1024;

/// Most clients of the metrics that are served at a time.
pub const METRICS_CLIENTS_MAX: usize = 16;

/// Most bytes of a request for the metrics. One of Prometheus has about 400.
pub const METRICS_REQUEST_BYTES_MAX: usize = 4096;

/// Most header fields of a request for the metrics. One of Prometheus has about 8.
pub const METRICS_FIELDS_MAX: usize = 64;

/// Maximum size of an answer, in bytes.
pub const STATUS_BYTES_MAX: u64 = 64 * 1024;

/// Most bytes of the error message of a supervisor, which is one line.
pub const SUPERVISOR_TEXT_BYTES_MAX: u64 = 1024;

/// Most bytes of an opener's reason why it has opened nothing, which is one line.
pub const OPENER_TEXT_BYTES_MAX: usize = 1024;

/// Most bytes of a witness's reason why it has no answer, which is one line.
pub const WITNESS_TEXT_BYTES_MAX: usize = 1024;

/// Most requests of a disk that are in flight. The device stops taking requests from its queue at this number.
pub const DISK_REQUESTS_MAX: usize = 64;

/// Most requests of a disk that are in flight for its copy to or from another host, beside those of the guest.
pub const DISK_COPY_REQUESTS_MAX: usize = 8;

/// Most requests of a disk that its thread has: those of the guest, those of a copy, and a flush for the copy.
pub const DISK_SLOTS_MAX: usize = DISK_REQUESTS_MAX + DISK_COPY_REQUESTS_MAX + 1;

/// Most superblocks that wait for the thread of their disk.
pub const DISK_KEEPS_MAX: usize = 8;

/// Most blocks of all disks, 64 KiB each, that the source of a copy holds: 4 MiB.
pub const DISK_COPY_HELD_MAX: usize = 64;

/// Largest disk, bytes. The bitmap of its private file has then 512 MiB, most of which is never touched.
pub const DISK_SIZE_BYTES_MAX: u64 = 16 << 40;

/// Most backing files below a qcow2 image.
pub const BACKING_FILES_MAX: usize = 16;

/// Most clusters of a qcow2 image that is written: 20 TiB of the usual 64 KiB. The check when it is opened has a byte
/// for each.
pub const QCOW2_CLUSTERS_MAX: u64 = 5 << 26;

/// Most entries of the L1 table or of the refcount table of a qcow2 image: 32 MiB, as in imago.
pub const QCOW2_TABLE_ENTRIES_MAX: u64 = 4 << 20;

/// Most snapshots in a qcow2 image, as in QEMU.
pub const QCOW2_SNAPSHOTS_MAX: u32 = 65536;

/// Most bytes of free buffers that a disk keeps: as many as all requests in flight may have.
pub const DISK_POOL_BYTES_MAX: usize = 4 << 20;

/// Bytes at which a recording ends unless `--log-max-bytes` is given. A guest can make 16 MB of log per second.
pub const LOG_BYTES_MAX: u64 = 16 << 30;

/// Largest file of `--config`, bytes.
pub const CONFIG_FILE_BYTES_MAX: u64 = 64 * 1024;

/// Largest file that is read, bytes. A key file has two digits for each byte and perhaps a line feed.
pub const KEY_FILE_BYTES_MAX: usize = 256;

/// Longest console line, bytes. Output is written at the end of a line, or when a line is this long.
pub const CONSOLE_LINE_BYTES_MAX: usize = 256;

/// Most frames that a tap can have queued while nobody read it: its queue and a ring's buffers.
pub const STALE_FRAMES_MAX: usize = 4096;

/// Most blocks that wait for the thread, the one that it writes included: 1 MiB. At the rate of a busy guest,
/// 2 MB/s, a disk may stall for half a second before the guest has to wait.
pub const LOG_BLOCKS_WAITING_MAX: usize = 8;

/// Most bytes of a head: the states, and one run of pages for every second page of the largest guest.
pub const SNAPSHOT_HEAD_BYTES_MAX: u64 = 16 << 20;

/// Most runs of changed blocks of a disk in a snapshot: 64 MiB in the file.
pub const FROZEN_RUNS_MAX: u64 = 1 << 22;

/// Most changed blocks of a disk that are stored in a snapshot: 256 GiB, and 512 MiB of digests, which are in memory.
pub const FROZEN_BLOCKS_MAX: u64 = 1 << 26;

/// Largest file of a witness that is read, bytes. A claim has at most 231.
pub const WITNESS_FILE_BYTES_MAX: u64 = 256;

/// Longest name of a host in a claim, bytes (`HOST_NAME_MAX` of Linux).
pub const HOST_NAME_BYTES_MAX: usize = 64;

/// Most endpoints of an etcd witness that are asked. A cluster has seldom more than five members.
pub const ETCD_ENDPOINTS_MAX: usize = 9;

/// Longest prefix of an etcd witness's keys, bytes.
pub const ETCD_PREFIX_BYTES_MAX: usize = 128;

/// Longest answer of an etcd server that is read, bytes. The longest that is expected has two keys with their values
/// in Base64, of [`WITNESS_FILE_BYTES_MAX`] each, or the list of a cluster's members.
pub const ETCD_ANSWER_BYTES_MAX: u64 = 64 * 1024;

/// Longest token of an etcd user, bytes. A signed one (JWT) has some hundred.
pub const ETCD_TOKEN_BYTES_MAX: usize = 4096;

/// Most VMs of an etcd witness that `understudy witness check` shows.
pub const ETCD_VMS_MAX: usize = 1000;

/// Largest file with certificates or a TLS key that is read, bytes.
pub const TLS_FILE_BYTES_MAX: usize = 64 * 1024;

/// Largest password file that is read, bytes.
pub const PASSWORD_FILE_BYTES_MAX: usize = 1024;

/// Most characters of another program's error in a message of the witness.
pub const REASON_CHARS_MAX: usize = 120;

/// Longest limit of a `--fence` command, seconds.
pub const FENCE_SECONDS_MAX: u64 = 3600;

/// Most bytes of a `--fence` command's output that are kept: its end, of which a message has the last line.
pub const FENCE_OUTPUT_BYTES_MAX: usize = 4096;

/// Most reads of a `--fence` command's output in one round.
pub const FENCE_READS_MAX: usize = 16;
