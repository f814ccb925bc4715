// Package fanout has many invocations of a function work off one thing: a backup, a
// restore, its verification, a copy.
//
// The thing is cut into segments, and a segment is worked off by one start at a time, as
// far as anybody can tell. Nobody holds a lock, and nothing is kept alive between two
// invocations. What is agreed on is agreed on by objects in the vault, each of which one
// writer wins ([repository.Repository.Win]). They make up a [Log]: notes of starts and of
// failures, slots, marks of ends.
//
// # The steps
//
//  1. Who plans looks at a group of segments ([Dispatch.Look]): one that no live start works on is ready, and is
//     submitted ([Dispatch.Submit]) as [Work] to a [Dispatcher], as many at a time as there may be workers.
//  2. An invocation is a [Worker]. It opens the [Job] of the segment that its command names.
//  3. The job reads the segment's log. One that has ended is left as it is, but for the marks that say so.
//  4. The worker notes its start: it creates the note with the start's number. Where another start has that number and
//     is at work, this one gives way. Starts that come to nothing, one after the other, end in a failure.
//  5. The job takes up what the log tells, works for the next slot, and returns what is to stand in it.
//  6. The worker wins the slot, or learns what another start has won it with. What was worked on counts from then on,
//     and not before. The job takes it into account: it goes on, or gives way.
//  7. Steps 5 and 6 are repeated until the segment has ended, and is marked so, or until time is up. Then the worker hands
//     over: it submits the segment's next start.
//  8. What goes wrong is noted as the failure of the start ([Log.Fail]), so that who plans knows of it without waiting
//     for the end of the invocation.
//  9. With time left, the worker goes on at step 3 with a segment that nobody has begun, whose first start it claims:
//     with one that its own was split into, or else with one that was planned. It ends when it finds none.
//
// Steps 3 to 8 are [Worker.Work], which exports, imports and verifications share. An
// invocation may be killed at each of them, and be delivered twice: whoever comes next
// finds in the log how far the segment is, and the rest is done once more, to the same
// effect.
//
// # Who knows what
//
// A slot is a document of the job's, and a place in a segment is opaque here: a backup
// stands at keys, and something else may stand at a point of a change stream. That the
// slots of a backup's segments chain, and that segments cover a table, is proved in
// package backup/coverage. Copies of a backup's groups note starts and failures in a Log,
// too, but any number of them may work on one group, and none gives way: they have no
// slots, and records of their own.
//
// Clocks decide nothing about what is done. They tell when a start is over that has left
// no word ([Log.MayWork]), and when to stop ([Margin]); a [Teller] tells people, and
// whoever looks for the dead, that a worker lives.
package fanout
