//go:build !race

package tablestore_test

const underRace = false
