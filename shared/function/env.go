package function

import (
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/tablevault/tablevault/shared/access"
	"github.com/tablevault/tablevault/shared/object/place"
	"github.com/tablevault/tablevault/shared/policy"
	"github.com/tablevault/tablevault/shared/vault"
)

// Env is what a function's environment says. It is read once, by [ReadEnv], and what
// differs from run to run stands in the command instead.
type Env struct {
	// Vault is where backups are: file:///dir, oss://bucket/prefix?region=… or
	// s3://bucket/prefix?region=…. TABLEVAULT_VAULT, required.
	Vault string

	// TablestoreEndpoint is the address of an instance, with {instance} and {region} to
	// be filled in by [Env.Tablestore]. TABLEVAULT_TABLESTORE_ENDPOINT: an address,
	// "public" (also the default) or "vpc" for the service's own.
	TablestoreEndpoint string

	// FCEndpoint is the base address of the Function Compute API, for a local host. Empty
	// means the service's own. TABLEVAULT_FC_ENDPOINT.
	FCEndpoint string

	// FunctionPrefix stands before every function's [Name] in its deployed name.
	// TABLEVAULT_FUNCTION_PREFIX, default "tablevault-".
	FunctionPrefix string

	// MemoryMB is the function's configured memory (FC_FUNCTION_MEMORY_SIZE), 512 if the
	// platform does not tell.
	MemoryMB int

	// Lanes is the number of ranges of a segment that are read side by side, 1 to
	// 16. TABLEVAULT_LANES, default 8.
	Lanes int

	// Margin is the time kept for closing before the deadline, until a worker has
	// measured how long that takes; never more than a third of the timeout.
	// TABLEVAULT_MARGIN, a duration, default 30s.
	Margin time.Duration

	// Policy is the file that says what is to be backed up. TABLEVAULT_POLICY, a path,
	// beginning at the deployed code if it is not absolute; default tablevault.yaml
	// there, which need not exist.
	Policy string

	// PolicyNamed says that TABLEVAULT_POLICY was set, so that the file must be there.
	PolicyNamed bool

	// Redispatch is how long a worker's start keeps its task id: one that nobody has
	// noted is submitted again as long as it is needed, and by then the platform may know
	// the id of a task that it dropped. TABLEVAULT_REDISPATCH, a duration, default 15m.
	Redispatch time.Duration

	// SplitAfter is the age below which no segment of a backup is split, however slow it
	// is. TABLEVAULT_SPLIT_AFTER, a duration, default 1m.
	SplitAfter time.Duration

	// LogLevel is the least level logged. TABLEVAULT_LOG_LEVEL: debug, info, warn or
	// error, default info.
	LogLevel slog.Level

	// Function, Region and Account are set by the platform (FC_FUNCTION_NAME, FC_REGION,
	// FC_ACCOUNT_ID).
	Function string
	Region   string
	Account  string

	// Credentials are the platform's of the instance, as old as it is
	// (ALIBABA_CLOUD_ACCESS_KEY_ID, _SECRET, ALIBABA_CLOUD_SECURITY_TOKEN). Those of the
	// invocation are preferred.
	Credentials access.Key

	// S3 are the credentials for s3:// vaults (AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY,
	// AWS_SESSION_TOKEN), of which the platform knows nothing: they are set as the
	// function's environment.
	S3 access.Key
}

// ReadEnv reads environ, in the form of os.Environ, and validates it as a whole: the
// error names every variable that is wrong, and what it wants, but never the value, which
// is a key now and then and would stand in logs. A variable that begins with TABLEVAULT_
// and is neither one of the above nor one of the others is an error, since it is a
// setting that someone believes to be in force.
func ReadEnv(environ []string, others ...string) (Env, error) {
	env := Env{
		TablestoreEndpoint: publicEndpoint,
		FunctionPrefix:     "tablevault-",
		MemoryMB:           512,
		Lanes:              8,
		Margin:             30 * time.Second,
		Redispatch:         15 * time.Minute,
		SplitAfter:         time.Minute,
		Policy:             policy.FileName,
	}
	values := make(map[string]string)
	for _, entry := range environ {
		if name, value, ok := strings.Cut(entry, "="); ok {
			values[name] = value
		}
	}
	env.Function = values["FC_FUNCTION_NAME"]
	env.Region = values["FC_REGION"]
	env.Account = values["FC_ACCOUNT_ID"]
	env.Credentials = access.Key{
		ID:     values["ALIBABA_CLOUD_ACCESS_KEY_ID"],
		Secret: values["ALIBABA_CLOUD_ACCESS_KEY_SECRET"],
		Token:  values["ALIBABA_CLOUD_SECURITY_TOKEN"],
	}
	env.S3 = access.Key{
		ID:     values["AWS_ACCESS_KEY_ID"],
		Secret: values["AWS_SECRET_ACCESS_KEY"],
		Token:  values["AWS_SESSION_TOKEN"],
	}
	if mb, err := strconv.Atoi(values["FC_FUNCTION_MEMORY_SIZE"]); err == nil && mb > 0 {
		env.MemoryMB = mb
	}

	var problems []error
	read := func(name string, set func(value string) error) {
		if value := values[name]; value != "" {
			if err := set(value); err != nil {
				problems = append(problems, fmt.Errorf("%s: %w", name, err))
			}
		}
		delete(values, name)
	}
	duration := func(name string, to *time.Duration, least time.Duration, want string) {
		read(name, func(v string) error {
			d, err := time.ParseDuration(v)
			if err != nil || d < least {
				return errors.New(want)
			}
			*to = d
			return nil
		})
	}
	if values["TABLEVAULT_VAULT"] == "" {
		problems = append(problems, errors.New("TABLEVAULT_VAULT is not set"))
	}
	read("TABLEVAULT_VAULT", func(v string) error {
		env.Vault = v
		_, err := place.Parse(v)
		return err
	})
	read("TABLEVAULT_TABLESTORE_ENDPOINT", func(v string) error {
		switch v {
		case "public":
			v = publicEndpoint
		case "vpc":
			v = vpcEndpoint
		}
		env.TablestoreEndpoint = v
		_, err := parseAddress(env.Tablestore("instance", "region"))
		return err
	})
	read("TABLEVAULT_FC_ENDPOINT", func(v string) error {
		env.FCEndpoint = v
		_, err := parseAddress(v)
		return err
	})
	read("TABLEVAULT_FUNCTION_PREFIX", func(v string) error {
		env.FunctionPrefix = v
		if checkFunctionName(env.Name(Import)) != nil {
			return errors.New("want the beginning of a function's name: letters, digits, _ and -, no digit or - first, and 64 with the rest of the name")
		}
		return nil
	})
	read("TABLEVAULT_LANES", func(v string) error {
		n, err := strconv.Atoi(v)
		if err != nil || n < 1 || n > vault.MaxLanes {
			return fmt.Errorf("want a number from 1 to %d", vault.MaxLanes)
		}
		env.Lanes = n
		return nil
	})
	duration("TABLEVAULT_MARGIN", &env.Margin, 0, "want a duration such as 30s")
	duration("TABLEVAULT_REDISPATCH", &env.Redispatch, time.Second, "want a duration of a second or more, such as 15m")
	duration("TABLEVAULT_SPLIT_AFTER", &env.SplitAfter, 1, "want a duration such as 1m")
	read("TABLEVAULT_POLICY", func(v string) error {
		env.Policy, env.PolicyNamed = v, true
		return nil
	})
	if code := values["FC_FUNC_CODE_PATH"]; code != "" && !path.IsAbs(env.Policy) {
		env.Policy = path.Join(code, env.Policy)
	}
	read("TABLEVAULT_LOG_LEVEL", func(v string) error {
		if !slices.Contains([]string{"debug", "info", "warn", "error"}, v) {
			return errors.New("want debug, info, warn or error")
		}
		return env.LogLevel.UnmarshalText([]byte(v))
	})

	var unknown []string
	for name := range values {
		if strings.HasPrefix(name, "TABLEVAULT_") && !slices.Contains(others, name) {
			unknown = append(unknown, name)
		}
	}
	slices.Sort(unknown)
	for _, name := range unknown {
		problems = append(problems, fmt.Errorf("%s: no such setting", name))
	}
	return env, errors.Join(problems...)
}

const (
	publicEndpoint = "https://{instance}.{region}.ots.aliyuncs.com"
	vpcEndpoint    = "https://{instance}.{region}.vpc.ots.aliyuncs.com"
)

// Tablestore returns the address of an instance. An empty region is the function's own.
func (e Env) Tablestore(instance, region string) string {
	if region == "" {
		region = e.Region
	}
	return strings.NewReplacer("{instance}", instance, "{region}", region).Replace(e.TablestoreEndpoint)
}

// Name returns the deployed name of a function.
func (e Env) Name(n Name) string { return e.FunctionPrefix + string(n) }

// parseAddress reads the address of a server.
func parseAddress(v string) (*url.URL, error) {
	u, err := url.Parse(v)
	if err != nil || (u.Scheme != "http" && u.Scheme != "https") || u.Host == "" ||
		strings.Trim(u.Path, "/") != "" || u.RawQuery != "" || u.Fragment != "" || u.User != nil {
		return nil, errors.New("want an address such as https://host or http://127.0.0.1:8080")
	}
	return u, nil
}
