package access

import (
	"fmt"
	"log/slog"
	"strings"
	"testing"
)

func TestSecretsNeverShow(t *testing.T) {
	c := Key{ID: "LTAI1", Secret: "s3cr3t", Token: "t0ken"}
	inv := struct {
		Credentials Key
		Pointer     *Key
	}{c, &c}
	var shown strings.Builder
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d"} {
		fmt.Fprintf(&shown, verb+"\n"+verb+"\n"+verb+"\n", c, &c, inv)
	}
	log := slog.New(slog.NewJSONHandler(&shown, nil))
	log.Info("x", "c", c, "p", &c, "inv", inv)
	slog.New(slog.NewTextHandler(&shown, nil)).Info("x", "c", c, "inv", inv)
	if s := shown.String(); strings.Contains(s, c.Secret) || strings.Contains(s, c.Token) ||
		strings.Contains(s, fmt.Sprintf("%x", c.Secret)) || !strings.Contains(s, c.ID) {
		t.Error(s)
	}
}
