// Package bucket is what the stores of OSS and S3 have in common: how an address is read,
// how a request is repeated, how a stream that broke off is taken up again, and how a
// name is settled after an answer was lost.
package bucket
