package function

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/tablevault/tablevault/shared/access"
)

func TestReadEnvDefaults(t *testing.T) {
	env, err := ReadEnv([]string{"TABLEVAULT_VAULT=oss://bucket/prefix?region=cn-hangzhou", "PATH=/bin", "FC_FUNCTION_MEMORY_SIZE=1024", "FC_REGION=cn-hangzhou",
		"FC_ACCOUNT_ID=1", "FC_FUNCTION_NAME=tablevault-plan", "ALIBABA_CLOUD_ACCESS_KEY_ID=id", "ALIBABA_CLOUD_ACCESS_KEY_SECRET=secret",
		"ALIBABA_CLOUD_SECURITY_TOKEN=token", "TABLEVAULT_LANES=", "TABLEVAULT_POLICY=", "FC_FUNC_CODE_PATH=/code"})
	if err != nil {
		t.Fatal(err)
	}
	want := Env{
		Vault: "oss://bucket/prefix?region=cn-hangzhou", TablestoreEndpoint: "https://{instance}.{region}.ots.aliyuncs.com", FunctionPrefix: "tablevault-",
		MemoryMB: 1024, Lanes: 8, Margin: 30 * time.Second, Redispatch: 15 * time.Minute, SplitAfter: time.Minute, Policy: "/code/tablevault.yaml", LogLevel: slog.LevelInfo,
		Function: "tablevault-plan", Region: "cn-hangzhou", Account: "1",
		Credentials: access.Key{ID: "id", Secret: "secret", Token: "token"},
	}
	if env != want {
		t.Errorf("got  %+v\nwant %+v", env, want)
	}
	if got := env.Tablestore("prod", ""); got != "https://prod.cn-hangzhou.ots.aliyuncs.com" {
		t.Error(got)
	}
	if got := env.Tablestore("prod", "us-east-1"); got != "https://prod.us-east-1.ots.aliyuncs.com" {
		t.Error(got)
	}
	if got := env.Name(Export); got != "tablevault-export" {
		t.Error(got)
	}
}

func TestReadEnvSettings(t *testing.T) {
	env, err := ReadEnv([]string{"TABLEVAULT_VAULT=file:///var/vault", "TABLEVAULT_TABLESTORE_ENDPOINT=vpc", "TABLEVAULT_FC_ENDPOINT=http://127.0.0.1:9",
		"TABLEVAULT_FUNCTION_PREFIX=dr-", "TABLEVAULT_LANES=16", "TABLEVAULT_MARGIN=1m30s", "TABLEVAULT_REDISPATCH=2m", "TABLEVAULT_SPLIT_AFTER=5s", "TABLEVAULT_LOG_LEVEL=debug",
		"FC_REGION=r", "FC_FUNCTION_MEMORY_SIZE=64"})
	if err != nil {
		t.Fatal(err)
	}
	if env.MemoryMB != 64 || env.Lanes != 16 || env.Margin != 90*time.Second || env.Redispatch != 2*time.Minute || env.SplitAfter != 5*time.Second || env.LogLevel != slog.LevelDebug ||
		env.Name(Plan) != "dr-plan" || env.FCEndpoint != "http://127.0.0.1:9" || env.Tablestore("i", "") != "https://i.r.vpc.ots.aliyuncs.com" {
		t.Errorf("%+v", env)
	}
}

func TestReadEnvRefuses(t *testing.T) {
	const vault = "TABLEVAULT_VAULT=oss://b"
	for name, test := range map[string]struct {
		environ []string
		want    string
	}{
		"split after":      {[]string{vault, "TABLEVAULT_SPLIT_AFTER=-1s"}, "TABLEVAULT_SPLIT_AFTER: want a duration"},
		"redispatch":       {[]string{vault, "TABLEVAULT_REDISPATCH=0s"}, "TABLEVAULT_REDISPATCH: want a duration"},
		"no vault":         {nil, "TABLEVAULT_VAULT is not set"},
		"relative vault":   {[]string{"TABLEVAULT_VAULT=file://hunter2"}, "TABLEVAULT_VAULT: it names a host"},
		"bare vault":       {[]string{"TABLEVAULT_VAULT=/hunter2"}, "TABLEVAULT_VAULT: want oss://"},
		"root":             {[]string{"TABLEVAULT_VAULT=file:////"}, "TABLEVAULT_VAULT: it is the root"},
		"unknown scheme":   {[]string{"TABLEVAULT_VAULT=gs://hunter2"}, "TABLEVAULT_VAULT: want oss://"},
		"vault with query": {[]string{"TABLEVAULT_VAULT=file:///p?x=hunter2"}, "TABLEVAULT_VAULT: it has a query"},
		"vault with a key": {[]string{"TABLEVAULT_VAULT=s3://AKIA:hunter2@bucket/prefix?region=x"}, "TABLEVAULT_VAULT: it has a user or a key"},
		"another key":      {[]string{"TABLEVAULT_VAULT=oss://b/p?secret=hunter2"}, `TABLEVAULT_VAULT: unknown parameter "secret"`},
		"no bucket":        {[]string{"TABLEVAULT_VAULT=oss:///hunter2"}, "TABLEVAULT_VAULT: it names no bucket"},
		"endpoint":         {[]string{vault, "TABLEVAULT_FC_ENDPOINT=127.0.0.1:9/hunter2"}, "TABLEVAULT_FC_ENDPOINT: want an address"},
		"tablestore":       {[]string{vault, "TABLEVAULT_TABLESTORE_ENDPOINT=https://u:hunter2@h"}, "TABLEVAULT_TABLESTORE_ENDPOINT: want an address"},
		"prefix":           {[]string{vault, "TABLEVAULT_FUNCTION_PREFIX=9hunter2"}, "TABLEVAULT_FUNCTION_PREFIX: want the beginning"},
		"memory":           {[]string{vault, "TABLEVAULT_MEMORY_MB=hunter2"}, "TABLEVAULT_MEMORY_MB: no such setting"},
		"lanes":            {[]string{vault, "TABLEVAULT_LANES=17"}, "TABLEVAULT_LANES: want a number from 1 to 16"},
		"margin":           {[]string{vault, "TABLEVAULT_MARGIN=hunter2"}, "TABLEVAULT_MARGIN: want a duration"},
		"negative margin":  {[]string{vault, "TABLEVAULT_MARGIN=-1s"}, "TABLEVAULT_MARGIN: want a duration"},
		"level":            {[]string{vault, "TABLEVAULT_LOG_LEVEL=hunter2"}, "TABLEVAULT_LOG_LEVEL: want debug"},
		"misspelt":         {[]string{vault, "TABLEVAULT_LANE=hunter2"}, "TABLEVAULT_LANE: no such setting"},
		"a secret":         {[]string{vault, "TABLEVAULT_ACCESS_KEY_SECRET=hunter2"}, "TABLEVAULT_ACCESS_KEY_SECRET: no such setting"},
	} {
		t.Run(name, func(t *testing.T) {
			env, err := ReadEnv(test.environ)
			if err == nil {
				t.Fatalf("accepted: %+v", env)
			}
			if !strings.Contains(err.Error(), test.want) {
				t.Errorf("error %q does not mention %q", err, test.want)
			}
			// Neither the log of a function whose settings are wrong nor its answer has
			// the value.
			var log bytes.Buffer
			s := &Server{Verbs: Verbs{}, Env: env, EnvError: err, Log: &log}
			answer, _ := s.Invoke(invocationContext(t, time.Minute), []byte(`{"kind":"ping"}`))
			if said := err.Error() + log.String() + string(answer); strings.Contains(said, "hunter2") || !strings.Contains(string(answer), TypeBadSettings) {
				t.Errorf("said: %s", said)
			}
		})
	}
	_, err := ReadEnv([]string{"TABLEVAULT_LANES=0", "TABLEVAULT_MARGIN=x", "TABLEVAULT_NONE=1"})
	for _, want := range []string{"TABLEVAULT_VAULT", "TABLEVAULT_LANES", "TABLEVAULT_MARGIN", "TABLEVAULT_NONE"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v does not name %s", err, want)
		}
	}
}
