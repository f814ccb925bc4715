// Package core has the tests of what the packages of the core do together: whole jobs in
// one process, on the world of package vaulttest, and on a Tablestore server with
// functions beside it, on a clock of the test's own.
package core
