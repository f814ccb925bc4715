// Package restore brings backups back into tables, and proves them: rows are loaded,
// compared in both directions, and only then is the table handed over.
//
// A [Planner] decides, and a [Loader] and a [Checker] work, each in invocations that know
// nothing of each other. What they agree on stands in the vault, under the restore's id
// ([vault.Restore]), where one writer wins each object.
//
// # The steps
//
//  1. A person's command, or a request that lies in the vault ([Requests]), asks for a backup and a target.
//  2. [Planner.Begin] looks whether the backup can be read, and claims the name of the target (claim.go); a command that is
//     given again goes on with the restore that has claimed it (again.go). It makes the plan (plan.go), which pins the
//     backup's manifest by its hash, and marks the restore, so that prune leaves the backup alone.
//  3. It makes the table as it has to be while rows are written, and notes by what the service tells it from any other
//     (make.go). From then on, whoever works compares (target.go): a restore that finds another table is over.
//  4. [Planner.Tick] is what goes on with a restore (tick.go). It may run at any time. It has each segment that nobody works
//     on loaded, and later compared, as package fanout tells; a phase begins when the one before it is over.
//  5. [Loader.Load] writes a segment (load.go, segment.go). It reads the shards part by part (part.go), and puts rows into
//     batches (writer.go), which are sent when their turn comes (send.go), under a lease: that the restore is open, the slot
//     free, and the table its own (lease.go). Rows that the service refuses are quarantined. What is loaded counts when its
//     entry has won a slot.
//  6. [Checker.Check] compares a segment with the table (check.go, compared.go), lane by lane, by package verify. What was
//     found becomes the segment's check, which also says whether anybody may still write the segment's rows.
//  7. The tick rolls the checks up by groups (closing.go), and holds their sums against the manifest. A table that is not
//     what the backup holds is not handed over: the restore is given up ([GiveUp]), and its proof says why.
//  8. It writes the closing record, after which no start writes a row, and waits for those that may not have seen it.
//  9. It gives the table what it had at the source: defined columns, indexes, options, the stream, search indexes
//     (finish.go).
//  10. It writes the proof, answers the request, and marks the restore as ended.
//
// Each step may be done twice, by deliveries that run beside each other, and be broken
// off anywhere: whoever comes next finds in the vault how far the restore is. A worker
// that has nothing left to do has the restore looked at (worker.go), so that phases
// follow each other without a wait for the planner's timer.
//
// A [Watcher] tells people how far a restore has come, by the same records (records.go),
// and writes none.
package restore
