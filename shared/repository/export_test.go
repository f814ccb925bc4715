package repository

// MaxHeaders is how many shards are read to find out what vault.json was.
const MaxHeaders = maxHeaders
