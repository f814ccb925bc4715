//go:build !linux && !darwin

package dir

import (
	"context"
	"fmt"
	"runtime"

	"github.com/tablevault/tablevault/shared/object"
)

// Open fails: names are created exclusively and made durable by calls that this system
// does not have.
func Open(_ context.Context, path string) (object.Store, error) {
	return nil, fmt.Errorf("open the directory %s: directories hold objects on Linux and macOS only, not on %s", path, runtime.GOOS)
}
