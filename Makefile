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
	go test -race ./shared/... ./local/...

fuzz:
	go test -run '^$$' -fuzz FuzzScanner -fuzztime 60s ./shared/plainbuffer
	go test -run '^$$' -fuzz FuzzReader -fuzztime 60s ./shared/vault/shard

bench:
	go test -run '^$$' -bench . -benchmem ./shared/plainbuffer ./shared/vault/shard ./shared/backup

lint:
	test -z "$$(gofmt -l .)"
	go vet ./...
	go run $(STATICCHECK) ./...

.PHONY: help demo build test race fuzz bench lint
