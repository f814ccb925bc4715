package function

import (
	"errors"
	"fmt"
	"log/slog"
	"maps"
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
	s := variables{values: make(map[string]string)}
	for _, entry := range environ {
		if name, value, ok := strings.Cut(entry, "="); ok {
			s.values[name] = value
		}
	}
	env.readPlatform(s.values)
	env.readAddresses(&s)
	env.readWork(&s)
	s.unknown(others)
	return env, errors.Join(s.problems...)
}

// readPlatform reads what the platform sets, and what it passes on for S3.
func (e *Env) readPlatform(values map[string]string) {
	e.Function = values["FC_FUNCTION_NAME"]
	e.Region = values["FC_REGION"]
	e.Account = values["FC_ACCOUNT_ID"]
	e.Credentials = access.Key{
		ID:     values["ALIBABA_CLOUD_ACCESS_KEY_ID"],
		Secret: values["ALIBABA_CLOUD_ACCESS_KEY_SECRET"],
		Token:  values["ALIBABA_CLOUD_SECURITY_TOKEN"],
	}
	e.S3 = access.Key{
		ID:     values["AWS_ACCESS_KEY_ID"],
		Secret: values["AWS_SECRET_ACCESS_KEY"],
		Token:  values["AWS_SESSION_TOKEN"],
	}
	if mb, err := strconv.Atoi(values["FC_FUNCTION_MEMORY_SIZE"]); err == nil && mb > 0 {
		e.MemoryMB = mb
	}
}

// readAddresses reads where everything is, and how it is called.
func (e *Env) readAddresses(s *variables) {
	if s.values["TABLEVAULT_VAULT"] == "" {
		s.problems = append(s.problems, errors.New("TABLEVAULT_VAULT is not set"))
	}
	s.read("TABLEVAULT_VAULT", func(v string) error {
		e.Vault = v
		_, err := place.Parse(v)
		return err
	})
	s.read("TABLEVAULT_TABLESTORE_ENDPOINT", func(v string) error {
		switch v {
		case "public":
			v = publicEndpoint
		case "vpc":
			v = vpcEndpoint
		}
		e.TablestoreEndpoint = v
		_, err := parseAddress(e.Tablestore("instance", "region"))
		return err
	})
	s.read("TABLEVAULT_FC_ENDPOINT", func(v string) error {
		e.FCEndpoint = v
		_, err := parseAddress(v)
		return err
	})
	s.read("TABLEVAULT_FUNCTION_PREFIX", func(v string) error {
		e.FunctionPrefix = v
		if checkFunctionName(e.Name(Import)) != nil {
			return errors.New("want the beginning of a function's name: letters, digits, _ and -, no digit or - first, and 64 with the rest of the name")
		}
		return nil
	})
	s.read("TABLEVAULT_POLICY", func(v string) error {
		e.Policy, e.PolicyNamed = v, true
		return nil
	})
	if code := s.values["FC_FUNC_CODE_PATH"]; code != "" && !path.IsAbs(e.Policy) {
		e.Policy = path.Join(code, e.Policy)
	}
}

// readWork reads how work is done, and what is logged of it.
func (e *Env) readWork(s *variables) {
	s.read("TABLEVAULT_LANES", func(v string) error {
		n, err := strconv.Atoi(v)
		if err != nil || n < 1 || n > vault.MaxLanes {
			return fmt.Errorf("want a number from 1 to %d", vault.MaxLanes)
		}
		e.Lanes = n
		return nil
	})
	s.duration("TABLEVAULT_MARGIN", &e.Margin, 0, "want a duration such as 30s")
	s.duration("TABLEVAULT_REDISPATCH", &e.Redispatch, time.Second, "want a duration of a second or more, such as 15m")
	s.duration("TABLEVAULT_SPLIT_AFTER", &e.SplitAfter, 1, "want a duration such as 1m")
	s.read("TABLEVAULT_LOG_LEVEL", func(v string) error {
		if !slices.Contains([]string{"debug", "info", "warn", "error"}, v) {
			return errors.New("want debug, info, warn or error")
		}
		return e.LogLevel.UnmarshalText([]byte(v))
	})
}

// variables are those of the environment, and what is wrong with them.
type variables struct {
	values   map[string]string
	problems []error
}

// read sets what a variable is for, if it is set.
func (s *variables) read(name string, set func(value string) error) {
	if value := s.values[name]; value != "" {
		if err := set(value); err != nil {
			s.problems = append(s.problems, fmt.Errorf("%s: %w", name, err))
		}
	}
	delete(s.values, name)
}

func (s *variables) duration(name string, to *time.Duration, least time.Duration, want string) {
	s.read(name, func(v string) error {
		d, err := time.ParseDuration(v)
		if err != nil || d < least {
			return errors.New(want)
		}
		*to = d
		return nil
	})
}

// unknown refuses what is left, was not read, and begins as settings do.
func (s *variables) unknown(others []string) {
	for _, name := range slices.Sorted(maps.Keys(s.values)) {
		if strings.HasPrefix(name, "TABLEVAULT_") && !slices.Contains(others, name) {
			s.problems = append(s.problems, fmt.Errorf("%s: no such setting", name))
		}
	}
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
