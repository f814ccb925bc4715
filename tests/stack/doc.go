// Package stack has the tests of the whole on the local stack: functions are processes of
// a host, and what they work on are servers.
package stack
