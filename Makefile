# Everything is one line of go. `make` lists the targets.
STATICCHECK = honnef.co/go/tools/cmd/staticcheck@v0.6.1

help:
	@grep -E '^[a-z]+:' $(MAKEFILE_LIST) | cut -d: -f1

demo:
	go run ./cmd/tablevault demo

build:
	go build -trimpath -o bin/ ./cmd/tablevault ./functions/...

test:
	go test ./...

race:
	go test -race ./shared/... ./local/... ./tests/...

fuzz:
	go test -run '^$$' -fuzz FuzzScanner -fuzztime 60s ./shared/plainbuffer
	go test -run '^$$' -fuzz FuzzReader -fuzztime 60s ./shared/vault/shard
	go test -run '^$$' -fuzz FuzzRecord -fuzztime 60s ./shared/vault/shard
	go test -run '^$$' -fuzz FuzzRows -fuzztime 60s -fuzzminimizetime 5x ./shared/vault/shard
	go test -run '^$$' -fuzz FuzzSum64 -fuzztime 60s ./shared/object/crc

# Speed as ratios to what does the same work otherwise, measured in turns.
bench:
	go test -run '^$$' -bench Beside -benchtime 1x -cpu 1 -timeout 120m ./shared/plainbuffer ./shared/vault/shard ./shared/backup

# The peak memory of function processes, at 100 MB and at 2 GB of rows.
memory:
	go test -run '^$$' -bench Memory -benchtime 1x -timeout 60m ./cmd/tablevault -large

lint:
	test -z "$$(gofmt -l .)"
	go vet ./...
	go run $(STATICCHECK) ./...

.PHONY: help demo build test race fuzz bench memory lint
