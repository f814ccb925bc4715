//go:build race

package tablestore_test

// underRace makes the largest tests smaller: the detector makes checksums, of which a
// server takes many, fifty times slower.
const underRace = true
