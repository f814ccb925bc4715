package deployment

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"
)

const product = "../../../s.yaml"

func readProduct(t *testing.T, env map[string]string) *Deployment {
	t.Helper()
	data, err := os.ReadFile(product)
	if err != nil {
		t.Fatal(err)
	}
	d, err := Parse("s.yaml", data, env)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func TestProduct(t *testing.T) {
	d := readProduct(t, nil)
	var got []string
	for _, f := range d.Functions {
		got = append(got, fmt.Sprintf("%s %s %s %s %v %d %v r%d", f.Resource, f.Name, f.Handler, f.Role, f.CPU, f.MemoryMB, f.Timeout, f.Async.Retries))
		if f.Region != "cn-hangzhou" || f.Code != "./target" || f.DiskMB != 512 || f.Environment["TABLEVAULT_VAULT"] != "oss://tablevault/vault" ||
			f.Environment["TABLEVAULT_LANES"] != "8" || f.Environment["TABLEVAULT_FUNCTION_PREFIX"] != "tablevault-" {
			t.Errorf("%+v", f)
		}
	}
	want := []string{
		"planner tablevault-plan bin/plan tablevault-plan 0.35 512 5m0s r1",
		"exporter tablevault-export bin/export tablevault-export 1 1024 15m0s r3",
		"importer tablevault-import bin/import tablevault-import 1 1024 15m0s r3",
		"verifier tablevault-verify bin/verify tablevault-verify 1 1024 15m0s r3",
	}
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	planner, ok := d.Function("tablevault-plan")
	if !ok || planner.Reserved != 5 || len(planner.Timers) != 1 || planner.Async.MaxAge != time.Hour {
		t.Fatalf("%+v", planner)
	}
	tick := planner.Timers[0]
	at := time.Date(2026, 11, 20, 2, 14, 59, 0, time.UTC)
	if !tick.Enabled || tick.Name != "tick" || tick.Payload != `{"kind":"tick"}` || !tick.Schedule.Next(at).Equal(at.Add(time.Second)) {
		t.Errorf("%+v, next %v", tick, tick.Schedule.Next(at))
	}
	importer, _ := d.Function("tablevault-import")
	if len(importer.Objects) != 1 || importer.Objects[0].Bucket != "tablevault" || importer.Objects[0].Prefix != "vault/requests/" || importer.Objects[0].Suffix != ".restore.json" {
		t.Errorf("%+v", importer.Objects)
	}
}

func TestProductFollowsTheEnvironment(t *testing.T) {
	d := readProduct(t, map[string]string{
		"TABLEVAULT_FUNCTION_PREFIX": "dr-", "TABLEVAULT_VAULT": "file:///v", "TABLEVAULT_REGION": "eu-central-1", "TABLEVAULT_LANES": "4",
		"TABLEVAULT_TABLESTORE_ENDPOINT": "http://127.0.0.1:1/{instance}", "TABLEVAULT_PLAN_ROLE": "acs:ram::123:role/p", "TABLEVAULT_BUCKET": "other", "TABLEVAULT_ACCOUNT": "123"})
	f, ok := d.Function("dr-plan")
	if !ok || f.Environment["TABLEVAULT_VAULT"] != "file:///v" || f.Environment["TABLEVAULT_LANES"] != "4" || f.Region != "eu-central-1" || f.Role != "acs:ram::123:role/p" ||
		f.Environment["TABLEVAULT_TABLESTORE_ENDPOINT"] != "http://127.0.0.1:1/{instance}" || f.Environment["TABLEVAULT_FUNCTION_PREFIX"] != "dr-" {
		t.Errorf("%+v", f)
	}
	if f, _ := d.Function("dr-import"); f.Objects[0].Bucket != "other" {
		t.Errorf("%+v", f.Objects)
	}
}

// minimal is the smallest deployment; edits of it make the table below.
const minimal = `edition: 3.0.0
name: x
vars:
  region: cn-hangzhou
  seconds: 60
template:
  base:
    runtime: go1
    environmentVariables: {A: "1", B: "2"}
resources:
  worker:
    component: fc3
    extend: {name: base}
    props:
      region: ${vars.region}
      functionName: work-er
      code: ./target
      handler: bin/worker
      role: worker
      cpu: 0.5
      memorySize: 512
      timeout: ${vars.seconds}
      logConfig: auto
      environmentVariables: {B: "3"}
      asyncInvokeConfig: {asyncTask: true, maxAsyncRetryAttempts: 0, maxAsyncEventAgeInSeconds: 60}
      triggers:
        - triggerName: t
          triggerType: timer
          triggerConfig: {cronExpression: "@every 5m", enable: false}
        - triggerName: o
          triggerType: oss
          sourceArn: acs:oss:cn-hangzhou:1:bucket
          triggerConfig:
            events: ["oss:ObjectCreated:PutObject"]
            filter: {key: {prefix: "", suffix: .json}}
`

func TestMinimal(t *testing.T) {
	d, err := Parse("s.yaml", []byte(minimal), nil)
	if err != nil {
		t.Fatal(err)
	}
	f := d.Functions[0]
	if f.Timeout != time.Minute || f.Region != "cn-hangzhou" || f.Environment["A"] != "1" || f.Environment["B"] != "3" || f.Timers[0].Enabled || f.Objects[0].Bucket != "bucket" {
		t.Errorf("%+v", f)
	}
}

func TestParseRefuses(t *testing.T) {
	for name, test := range map[string]struct{ old, new, want string }{
		"misspelt property":      {"memorySize: 512", "memroySize: 512", "resources.worker.props.memroySize: unknown key"},
		"suggestion":             {"memorySize: 512", "memroySize: 512", "did you mean memorySize?"},
		"no suggestion":          {"memorySize: 512", "zzz: 512", "zzz: unknown key; known here"},
		"log project":            {"logConfig: auto", "logConfig: {project: A, logstore: functions}", "logConfig.project"},
		"log rule":               {"logConfig: auto", "logConfig: {project: abc, logstore: abc, logBeginRule: Any}", "DefaultRegex or None"},
		"vpc without switches":   {"cpu: 0.5", "cpu: 0.5\n      vpcConfig: {vpcId: vpc-a, securityGroupId: sg-a}", "vSwitchIds: there are none"},
		"vpc's switch":           {"cpu: 0.5", "cpu: 0.5\n      vpcConfig: {vpcId: vpc-a, securityGroupId: sg-a, vSwitchIds: [x]}", "vSwitchIds[0]"},
		"vpc's id":               {"cpu: 0.5", "cpu: 0.5\n      vpcConfig: {vpcId: a, securityGroupId: sg-a, vSwitchIds: [vsw-a]}", "vpcConfig.vpcId"},
		"tag twice":              {"cpu: 0.5", "cpu: 0.5\n      tags: [{key: a, value: b}, {key: a, value: c}]", "tags[1].key"},
		"unused template":        {"resources:\n", "  other: {cpu: 1}\nresources:\n", "template.other: no resource extends it"},
		"bucket elsewhere":       {"acs:oss:cn-hangzhou:1", "acs:oss:cn-beijing:1", "another region"},
		"destination elsewhere":  {"asyncTask: true,", "asyncTask: true, destinationConfig: {onFailure: {destination: \"acs:mns:cn-beijing:1:/queues/q/messages\"}},", "another region"},
		"tells itself":           {"asyncTask: true,", "asyncTask: true, destinationConfig: {onFailure: {destination: \"acs:fc:cn-hangzhou::functions/work-er\"}},", "for ever"},
		"same objects":           {minimal[strings.Index(minimal, "        - triggerName: o"):], minimal[strings.Index(minimal, "        - triggerName: o"):] + strings.Replace(minimal[strings.Index(minimal, "        - triggerName: o"):], "triggerName: o", "triggerName: p", 1), "want the same objects"},
		"timer's source":         {"triggerType: timer", "triggerType: timer\n          sourceArn: acs:oss:cn-hangzhou:1:bucket", "a timer has no source"},
		"event's pattern":        {"triggerType: timer\n          triggerConfig: {cronExpression: \"@every 5m\", enable: false}", "triggerType: eventbridge\n          triggerConfig: {triggerEnable: true, eventRuleFilterPattern: \"{}\", eventSourceConfig: {eventSourceType: Default}}", "an empty pattern"},
		"event's source":         {"triggerType: timer\n          triggerConfig: {cronExpression: \"@every 5m\", enable: false}", "triggerType: eventbridge\n          triggerConfig: {triggerEnable: true, eventRuleFilterPattern: '{\"source\":[\"a\"]}', eventSourceConfig: {eventSourceType: Kafka}}", "only Default"},
		"event not last":         {"triggerType: timer\n          triggerConfig: {cronExpression: \"@every 5m\", enable: false}", "triggerType: eventbridge\n          triggerConfig: {triggerEnable: true, eventRuleFilterPattern: '{\"source\":[\"a\"]}', eventSourceConfig: {eventSourceType: Default}}", "put t last"},
		"unknown trigger config": {"enable: false", "enabled: false", "triggerConfig.enabled: unknown key"},
		"unknown top key":        {"name: x", "nmae: x", "nmae: unknown key"},
		"edition":                {"edition: 3.0.0", "edition: 1.0.0", "1.0.0"},
		"component":              {"component: fc3", "component: fc", `"fc"`},
		"resource name":          {"  worker:\n", "  plan:\n", "resources.plan: the tool's command line"},
		"function name":          {"work-er", "9worker", "9worker"},
		"runtime":                {"runtime: go1", "runtime: custom", "custom"},
		"absolute handler":       {"bin/worker", "/bin/worker", "executable's path"},
		"handler outside":        {"bin/worker", "../worker", "executable's path"},
		"cpu step":               {"cpu: 0.5", "cpu: 0.33", "steps of 0.05"},
		"cpu text":               {"cpu: 0.5", `cpu: "0.5"`, "want a number"},
		"too little memory":      {"memorySize: 512", "memorySize: 256", "one to four GB"},
		"too much memory":        {"memorySize: 512", "memorySize: 3072", "one to four GB"},
		"memory step":            {"memorySize: 512", "memorySize: 500", "steps of 64"},
		"memory text":            {"memorySize: 512", `memorySize: "512"`, "want an integer"},
		"timeout":                {"timeout: ${vars.seconds}", "timeout: 86401", "86401"},
		"timeout by variable":    {"seconds: 60", "seconds: 0", "timeout: 0: want 1 to 86400"},
		"disk":                   {"cpu: 0.5", "cpu: 0.5\n      diskSize: 1024", "512 or 10240"},
		"no role":                {"      role: worker\n", "", "role: is missing"},
		"role":                   {"role: worker", "role: a b", `"a b"`},
		"no log":                 {"      logConfig: auto\n", "", "logConfig: is missing"},
		"log config":             {"logConfig: auto", "logConfig: {store: x}", "logConfig.store: unknown"},
		"platform's variable":    {`{B: "3"}`, `{FC_B: "3"}`, "FC_B"},
		"variable's name":        {`{B: "3"}`, `{B-C: "3"}`, "B-C"},
		"number as variable":     {`{B: "3"}`, `{B: 3}`, "want a string"},
		"too many variables":     {`{B: "3"}`, `{B: "` + strings.Repeat("x", 4096) + `"}`, "at most 4096"},
		"no task mode":           {"asyncTask: true", "asyncTask: false", "asyncTask: want true"},
		"retries":                {"maxAsyncRetryAttempts: 0", "maxAsyncRetryAttempts: 9", "9: want 0 to 8"},
		"age":                    {"maxAsyncEventAgeInSeconds: 60", "maxAsyncEventAgeInSeconds: 604801", "604801"},
		"no async config":        {"      asyncInvokeConfig: {asyncTask: true, maxAsyncRetryAttempts: 0, maxAsyncEventAgeInSeconds: 60}\n", "", "asyncInvokeConfig: is missing"},
		"destination":            {"asyncTask: true,", "asyncTask: true, destinationConfig: {onFailure: {destination: mail}},", `"mail"`},
		"reserved":               {"cpu: 0.5", "cpu: 0.5\n      concurrencyConfig: {reservedConcurrency: 0}", "reservedConcurrency: 0"},
		"trigger type":           {"triggerType: timer", "triggerType: http", `"http"`},
		"trigger twice":          {"triggerName: o", "triggerName: t", "stands twice"},
		"enable missing":         {", enable: false", "", "enable: is missing"},
		"cron":                   {"@every 5m", "* * * * *", "5 fields"},
		"bucket":                 {"acs:oss:cn-hangzhou:1:bucket", "bucket", "sourceArn"},
		"event of a part":        {"ObjectCreated:PutObject", "ObjectCreated:UploadPart", "UploadPart"},
		"no suffix":              {", suffix: .json", "", "suffix: is missing"},
		"empty suffix":           {"suffix: .json", `suffix: ""`, "suffix: is empty"},
		"no prefix":              {`prefix: "", `, "", "prefix: is missing"},
		"qualifier":              {"triggerType: timer", "triggerType: timer\n          qualifier: prod", "LATEST"},
		"no props":               {minimal[strings.Index(minimal, "    props:"):], "", "props"},
		"template missing":       {"extend: {name: base}", "extend: {name: bsae}", `"bsae"`},
		"unset variable":         {"role: worker", "role: ${env('NOPE')}", "NOPE is not set"},
		"unknown variable":       {"${vars.region}", "${vars.regoin}", "there is no vars.regoin"},
		"unknown function":       {"role: worker", "role: ${config('AccountID')}", "${config('AccountID')} is not read"},
		"other resource":         {"role: worker", "role: ${resources.x.props.role}", "is not read"},
		"expression's end":       {"role: worker", "role: ${env('A'", "without an end"},
		"brace in a default":     {"role: worker", "role: ${env('A', 'https://{x}')}", "brace"},
		"variable in itself":     {"seconds: 60", "seconds: ${vars.seconds}", "refer to each other"},
		"bomb":                   {"seconds: 60", bomb(), "after evaluation"},
		"mapping in a text":      {"role: worker", "role: x${vars}", "is not read"},
		"list in a text":         {"seconds: 60", "seconds: [1]\n  x: a${vars.seconds}", "within a text"},
		"alias":                  {"role: worker", "role: &a worker", "anchors"},
		"tag":                    {"role: worker", "role: !!str worker", "not read"},
		"key twice":              {"role: worker", "role: worker\n      role: other", "role"},
		"two documents":          {"edition: 3.0.0", "a: b\n---\nedition: 3.0.0", "2 YAML documents"},
		"function twice":         {"resources:\n", "resources:\n  a:\n    component: fc3\n    props: {functionName: work-er}\n", "is the name of a"},
		"lists in both":          {"    runtime: go1", "    runtime: go1\n    triggers: []", "lists are not merged"},
		"hooks":                  {"component: fc3", "component: fc3\n    actions: {pre-deploy: [{rnu: x}]}", "rnu: unknown key"},
	} {
		t.Run(name, func(t *testing.T) {
			if !strings.Contains(minimal, test.old) {
				t.Fatalf("the edit's old text %q is not there", test.old)
			}
			_, err := Parse("s.yaml", []byte(strings.Replace(minimal, test.old, test.new, 1)), nil)
			if err == nil {
				t.Fatal("accepted")
			}
			if !strings.Contains(err.Error(), test.want) {
				t.Errorf("error does not mention %q:\n%v", test.want, err)
			}
			if !strings.HasPrefix(err.Error(), "s.yaml") {
				t.Errorf("error does not begin with the file: %v", err)
			}
		})
	}
	for _, text := range []string{"", "\n", "[1]", "x", "edition: [", "a: {b: \"", strings.Repeat("- ", 5000) + "x", strings.Repeat("[", 5000)} {
		if _, err := Parse("s.yaml", []byte(text), nil); err == nil {
			t.Errorf("%.20q: accepted", text)
		}
	}
}

func bomb() string {
	var b strings.Builder
	b.WriteString("seconds: 60")
	for i := range 25 {
		fmt.Fprintf(&b, "\n  v%d: [\"${vars.v%d}\", \"${vars.v%d}\"]", i, i+1, i+1)
	}
	b.WriteString("\n  v25: x")
	return b.String()
}

// TestProblemsSayWhere: every problem of a file is told, with its line.
func TestProblemsSayWhere(t *testing.T) {
	text := strings.NewReplacer("cpu: 0.5", "cpu: 0.33", "role: worker", "roel: worker").Replace(minimal)
	_, err := Parse("s.yaml", []byte(text), nil)
	var problem *Problem
	if !errors.As(err, &problem) {
		t.Fatal(err)
	}
	for _, want := range []string{"s.yaml:19: resources.worker.props.roel:", "s.yaml:20: resources.worker.props.cpu:", "props.role: is missing"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%v\nlacks %q", err, want)
		}
	}
}

func TestParseSchedule(t *testing.T) {
	at := time.Date(2026, 11, 20, 10, 30, 30, 0, time.UTC) // a Friday
	for expression, want := range map[string]string{
		"0 0 * * * *":                           "2026-11-20T11:00:00Z",
		"15 */10 * * * *":                       "2026-11-20T10:40:15Z",
		"0 0 8 * * *":                           "2026-11-21T08:00:00Z",
		"CRON_TZ=Asia/Shanghai 0 0 8 * * *":     "2026-11-21T00:00:00Z",
		"CRON_TZ=Asia/Shanghai 0 30 18 ? * MON": "2026-11-23T10:30:00Z",
		"0 0 0 ? * MON-FRI":                     "2026-11-23T00:00:00Z",
		"0 0 0 * * SAT-SUN":                     "2026-11-21T00:00:00Z",
		"0 0 0 * * MON-SUN":                     "2026-11-21T00:00:00Z",
		"0 0 0 * * SUN":                         "2026-11-22T00:00:00Z",
		"0 0 0 1 JAN ?":                         "2027-01-01T00:00:00Z",
		"0 0 0 29 2 ?":                          "2028-02-29T00:00:00Z",
		"0 5,35 9-17 * * *":                     "2026-11-20T10:35:00Z",
		"@every 5m":                             "2026-11-20T10:35:30Z",
	} {
		s, err := ParseSchedule(expression)
		if err != nil {
			t.Errorf("%s: %v", expression, err)
			continue
		}
		if got := s.Next(at).UTC().Format(time.RFC3339); got != want {
			t.Errorf("%s: next is %s, want %s", expression, got, want)
		}
	}
	for _, expression := range []string{"", "* * * * *", "* * * * * *", "0 * * * * * *", "*/5 * * * * *", "60 * * * * *", "0 60 * * * *", "0 ? * * * *",
		"0 0 0 * * 1", "0 0 0 * * MON-7", "0 0 0 31 2 *", "0 , * * * *", "0 5-1 * * * *", "@every 5s", "@every 0m", "@every -1m", "@hourly", "@reboot",
		"CRON_TZ=", "CRON_TZ=UTC", "CRON_TZ=Local 0 0 8 * * *", "CRON_TZ=Mars/Base 0 0 8 * * *", "TZ=UTC 0 0 8 * * *", "0 0 0 L * *", "0 0 0 * FOO *", "0 0 0 * * FOO",
		"0 0/0 * * * *", "CRON_TZ=../../etc/passwd 0 0 8 * * *"} {
		if s, err := ParseSchedule(expression); err == nil {
			t.Errorf("%q: accepted, next is %v", expression, s.Next(at))
		}
	}
}

// FuzzParse: no panic escapes, and what is accepted has functions whose timers have
// schedules.
func FuzzParse(f *testing.F) {
	f.Add(minimal)
	if data, err := os.ReadFile(product); err == nil {
		f.Add(string(data))
	}
	f.Add("edition: 3.0.0\nvars: {a: '${vars.a}'}\nresources: {a: {extend: {name: b}}}\ntemplate: {b: []}")
	f.Fuzz(func(t *testing.T, text string) {
		d, err := Parse("s.yaml", []byte(text), map[string]string{"A": "${vars.a}"})
		if err != nil {
			return
		}
		if len(d.Functions) == 0 {
			t.Error("accepted without functions")
		}
		for _, fn := range d.Functions {
			for _, timer := range fn.Timers {
				if timer.Schedule.Next(time.Unix(0, 0)).IsZero() {
					t.Errorf("timer %q never fires", timer.Cron)
				}
			}
		}
	})
}

// FuzzParseSchedule: no panic, and what is accepted fires.
func FuzzParseSchedule(f *testing.F) {
	for _, s := range []string{"0 0 * * * *", "CRON_TZ=Asia/Shanghai 0 0 8 ? * MON-SUN,FRI", "@every 5m", "0 0/5 1-2 29 FEB-MAR/2 *"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, expression string) {
		s, err := ParseSchedule(expression)
		if err != nil {
			return
		}
		at := time.Date(2001, 3, 1, 0, 0, 0, 0, time.UTC)
		if next := s.Next(at); !next.IsZero() && !next.After(at) {
			t.Errorf("%q: next after %v is %v", expression, at, next)
		}
	})
}

// TestProductHasItsFunctions: each handler of the s.yaml is a folder under functions, and
// each such folder is somebody's handler.
func TestProductHasItsFunctions(t *testing.T) {
	handlers := make(map[string]bool)
	for _, f := range readProduct(t, nil).Functions {
		handlers[strings.TrimPrefix(f.Handler, "bin/")] = true
	}
	folders, err := os.ReadDir("../../../functions")
	if err != nil {
		t.Fatal(err)
	}
	for _, folder := range folders {
		if folder.Name() == "internal" {
			continue // what the functions share
		}
		if !handlers[folder.Name()] {
			t.Errorf("functions/%s is not in the s.yaml", folder.Name())
		}
		delete(handlers, folder.Name())
	}
	for name := range handlers {
		t.Errorf("the s.yaml has %s, and there is no functions/%s", name, name)
	}
}

// TestPattern: an event fits when each field that the pattern names fits.
func TestPattern(t *testing.T) {
	p, err := ParsePattern(`{"source":["acme.jobs","acme.other"],"type":[{"prefix":"backup:"},{"suffix":":now"}]}`)
	if err != nil {
		t.Fatal(err)
	}
	for name, test := range map[string]struct {
		source, kind string
		want         bool
	}{
		"both":           {"acme.jobs", "backup:full", true},
		"other choices":  {"acme.other", "restore:now", true},
		"source":         {"acme", "backup:full", false},
		"type":           {"acme.jobs", "restore:later", false},
		"not the prefix": {"acme.jobs", "a backup:", false},
	} {
		if got := p.Fits(map[string]string{"source": test.source, "type": test.kind, "subject": "any"}); got != test.want {
			t.Errorf("%s: %v", name, got)
		}
	}
	for text, want := range map[string]string{
		`{"data":["x"]}`: "data", `{"source":[]}`: "no test", `{"source":"x"}`: "lists", `{"source":[{"anything-but":"x"}]}`: "anything-but", `{"source":[7]}`: "7", `x`: "JSON", `{}`: "every event",
	} {
		if _, err := ParsePattern(text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: error %v does not mention %q", text, err, want)
		}
	}
}

func TestMatches(t *testing.T) {
	trigger := ObjectTrigger{Prefix: "requests/", Suffix: "/.json"}
	for key, want := range map[string]bool{"requests/a/.json": true, "requests//.json": true, "requests/.json": false, "requests/a.json": false} {
		if got := trigger.Matches(key); got != want {
			t.Errorf("%s: %v", key, got)
		}
	}
}
