package deployment

import (
	"fmt"
	"math"
	"path"
	"regexp"
	"slices"
	"strings"
	"time"
)

// reader turns the tree into a Deployment and collects what is wrong.
type reader struct {
	file     string
	problems []error
}

func (r *reader) problem(n *node, path, format string, args ...any) {
	line := 1
	if n != nil {
		line = max(n.line, 1)
	}
	r.problems = append(r.problems, &Problem{File: r.file, Line: line, Path: path, Text: fmt.Sprintf(format, args...)})
}

// object is a mapping being read.
type object struct {
	at *node
	*mapping
}

// mapping opens a mapping whose keys are all among known. It is usable, and empty, if
// there is none.
func (r *reader) mapping(n *node, path string, known ...string) object {
	none := object{n, &mapping{}}
	if n == nil {
		return none
	}
	m := n.mapping()
	if m == nil {
		r.problem(n, path, "want a mapping, this is %s", n.kind())
		return none
	}
	for _, key := range m.keys {
		if !slices.Contains(known, key) {
			r.problem(m.values[key], join(path, key), "unknown key%s; known here: %s", suggest(key, known), strings.Join(known, ", "))
		}
	}
	return object{n, m}
}

// suggest names the known word that a misspelt one is likely to mean.
func suggest(word string, known []string) string {
	best, least := "", len(word)/2
	for _, k := range known {
		if d := distance(strings.ToLower(word), strings.ToLower(k)); d <= least && (best == "" || d < least) {
			best, least = k, d
		}
	}
	if best == "" {
		return ""
	}
	return fmt.Sprintf(", did you mean %s?", best)
}

// distance is how many letters must be put in, left out, replaced, or swapped with their
// neighbour to turn a into b.
func distance(a, b string) int {
	before, last := make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range last {
		last[j] = j
	}
	for i := 1; i <= len(a); i++ {
		row := make([]int, len(b)+1)
		row[0] = i
		for j := 1; j <= len(b); j++ {
			same := 1
			if a[i-1] == b[j-1] {
				same = 0
			}
			row[j] = min(last[j]+1, row[j-1]+1, last[j-1]+same)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				row[j] = min(row[j], before[j-2]+1)
			}
		}
		before, last = last, row
	}
	return last[len(b)]
}

// text reads a string; without it, it is empty.
func (r *reader) text(o object, path, key string, required bool) string {
	n := o.values[key]
	if n == nil {
		if required {
			r.problem(o.at, join(path, key), "is missing")
		}
		return ""
	}
	text, ok := n.value.(string)
	switch {
	case !ok:
		r.problem(n, join(path, key), "want a string, this is %s", n.kind())
	case required && text == "":
		r.problem(n, join(path, key), "is empty")
	}
	return text
}

// pattern reads a string that an expression matches.
func (r *reader) pattern(o object, path, key string, required bool, match *regexp.Regexp, want string) string {
	text := r.text(o, path, key, required)
	if text != "" && !match.MatchString(text) {
		r.problem(o.values[key], join(path, key), "%q: want %s", text, want)
	}
	return text
}

// integer reads a number from least to most that step divides; without it, it is the
// fallback, and an error if that is negative.
func (r *reader) integer(o object, path, key string, fallback, least, most, step int64) int {
	n := o.values[key]
	if n == nil {
		if fallback < 0 {
			r.problem(o.at, join(path, key), "is missing")
		}
		return int(fallback)
	}
	v, ok := n.value.(int64)
	switch {
	case !ok:
		r.problem(n, join(path, key), "want an integer, this is %s", n.kind())
	case v < least || v > most || v%step != 0:
		multiple := ""
		if step > 1 {
			multiple = fmt.Sprintf(" in steps of %d", step)
		}
		r.problem(n, join(path, key), "%d: want %d to %d%s", v, least, most, multiple)
	}
	return int(v)
}

func (r *reader) boolean(o object, path, key string, required bool) bool {
	n := o.values[key]
	if n == nil {
		if required {
			r.problem(o.at, join(path, key), "is missing")
		}
		return false
	}
	v, ok := n.value.(bool)
	if !ok {
		r.problem(n, join(path, key), "want true or false, this is %s", n.kind())
	}
	return v
}

func (r *reader) list(o object, path, key string) []*node {
	n := o.values[key]
	if n == nil {
		return nil
	}
	items, ok := n.value.([]*node)
	if !ok {
		r.problem(n, join(path, key), "want a list, this is %s", n.kind())
	}
	return items
}

var (
	projectName  = regexp.MustCompile(`^[A-Za-z][A-Za-z0-9_-]*$`)
	regionName   = regexp.MustCompile(`^[a-z]{2}(-[a-z0-9]+)+$`)
	functionName = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_-]{0,63}$`)
	triggerName  = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_-]{0,127}$`)
	roleName     = regexp.MustCompile(`^(acs:ram::[0-9]+:role/)?[A-Za-z0-9.-]{1,64}$`)
	variableName = regexp.MustCompile(`^[A-Za-z][A-Za-z0-9_]*$`)
	destination  = regexp.MustCompile(`^acs:(?:fc:([a-z0-9-]+):[0-9]*:functions/([A-Za-z0-9_-]+)|mns:([a-z0-9-]+):[0-9]*:/(?:queues|topics)/[A-Za-z0-9-]+/messages)$`)
	bucketARN    = regexp.MustCompile(`^acs:oss:([a-z0-9-]+):[0-9]+:([a-z0-9][a-z0-9-]{1,61}[a-z0-9])$`)
	tagKey       = regexp.MustCompile(`^[^\s].{0,127}$`)
	vpcID        = regexp.MustCompile(`^vpc-[a-z0-9]+$`)
	vSwitchID    = regexp.MustCompile(`^vsw-[a-z0-9]+$`)
	groupID      = regexp.MustCompile(`^sg-[a-z0-9]+$`)
	logName      = regexp.MustCompile(`^[a-z0-9][a-z0-9_-]{1,61}[a-z0-9]$`)
)

// commandWords are those that the deploying tool's command line takes for its own: a
// resource of such a name cannot be addressed, or is taken for the command.
func commandWords() []string {
	return []string{"plan", "verify", "deploy", "invoke", "info", "remove", "local", "build", "sync", "logs",
		"preview", "config", "init", "registry", "component", "cli", "set", "clean", "model", "layer", "version", "alias", "concurrency", "provision"}
}

// createdEvents are the events after which an object is whole. Those of a part or of an
// upload's beginning, and the wildcard that includes them, are left out.
func createdEvents() []string {
	return []string{"oss:ObjectCreated:PutObject", "oss:ObjectCreated:PostObject", "oss:ObjectCreated:CopyObject", "oss:ObjectCreated:CompleteMultipartUpload"}
}

const maxEnvironment = 4 << 10 // bytes of all names and values

func (r *reader) deployment(root *node) *Deployment {
	top := r.mapping(root, "", "edition", "name", "access", "vars", "template", "actions", "resources")
	if edition := r.text(top, "", "edition", true); edition != "" && edition != "3.0.0" {
		r.problem(top.values["edition"], "edition", "%q: want 3.0.0", edition)
	}
	r.templates(top)
	d := &Deployment{Name: r.pattern(top, "", "name", true, projectName, "letters, digits, _ and -")}
	r.text(top, "", "access", false)
	r.actions(top, "")
	resources := r.mapping(top.values["resources"], "resources", keysOf(top.values["resources"])...)
	if len(resources.keys) == 0 {
		r.problem(top.values["resources"], "resources", "there are none")
	}
	names := make(map[string]string)
	for _, key := range resources.keys {
		at := "resources." + key
		n := resources.values[key]
		if slices.Contains(commandWords(), key) {
			r.problem(n, at, "the tool's command line takes this word for a command: name the resource otherwise")
		} else if !projectName.MatchString(key) {
			r.problem(n, at, "want letters, digits, _ and -")
		}
		resource := r.mapping(n, at, "component", "actions", "extend", "props")
		if component := r.text(resource, at, "component", true); component != "" && component != "fc3" {
			r.problem(resource.values["component"], at+".component", "%q: only fc3 is read here", component)
		}
		r.actions(resource, at)
		if resource.values["props"] == nil {
			r.problem(n, at+".props", "is missing")
			continue
		}
		f := r.function(resource.values["props"], at+".props")
		f.Resource = key
		if other, ok := names[f.Name]; ok {
			r.problem(n, at+".props.functionName", "%q is the name of %s, too", f.Name, other)
		}
		names[f.Name] = key
		d.Functions = append(d.Functions, f)
	}
	r.loops(d, resources)
	r.overlaps(d, resources)
	return d
}

// templates checks that each template is used: one that is not was meant for some
// resource.
func (r *reader) templates(top object) {
	used := make(map[string]bool)
	for _, key := range keysOf(top.values["resources"]) {
		resource := top.values["resources"].mapping().values[key].mapping()
		if resource == nil {
			continue
		}
		if extend := resource.values["extend"].mapping(); extend != nil && extend.values["name"] != nil {
			name, _ := extend.values["name"].value.(string)
			used[name] = true
		}
	}
	for _, name := range keysOf(top.values["template"]) {
		if !used[name] {
			r.problem(top.values["template"].mapping().values[name], "template."+name, "no resource extends it")
		}
	}
}

// loops checks destinations: a function of this file that tells itself, or one that in
// turn tells it, goes on for ever.
func (r *reader) loops(d *Deployment, resources object) {
	next := make(map[string][]string)
	for _, f := range d.Functions {
		for _, arn := range []string{f.Async.OnSuccess, f.Async.OnFailure} {
			m := destination.FindStringSubmatch(arn)
			if m == nil {
				continue
			}
			if region := m[1] + m[3]; f.Region != "" && region != f.Region {
				r.problem(resources.values[f.Resource], "resources."+f.Resource+".props.asyncInvokeConfig.destinationConfig", "%q is in another region than the function, %s", arn, f.Region)
			}
			if m[2] != "" {
				next[f.Name] = append(next[f.Name], m[2])
			}
		}
	}
	for _, f := range d.Functions {
		reached := map[string]bool{}
		todo := slices.Clone(next[f.Name])
		for len(todo) > 0 {
			name := todo[0]
			todo = todo[1:]
			if !reached[name] {
				reached[name] = true
				todo = append(todo, next[name]...)
			}
		}
		if reached[f.Name] {
			r.problem(resources.values[f.Resource], "resources."+f.Resource+".props.asyncInvokeConfig.destinationConfig", "what %s tells comes back to it: an outcome would be told for ever", f.Name)
		}
	}
}

// overlaps checks that no two object triggers want the same object: the service refuses
// the second.
func (r *reader) overlaps(d *Deployment, resources object) {
	type owned struct {
		resource string
		ObjectTrigger
	}
	var all []owned
	for _, f := range d.Functions {
		for _, t := range f.Objects {
			for _, other := range all {
				events := slices.ContainsFunc(t.Events, func(e string) bool { return slices.Contains(other.Events, e) })
				prefixes := strings.HasPrefix(t.Prefix, other.Prefix) || strings.HasPrefix(other.Prefix, t.Prefix)
				suffixes := strings.HasSuffix(t.Suffix, other.Suffix) || strings.HasSuffix(other.Suffix, t.Suffix)
				if t.Bucket != "" && t.Bucket == other.Bucket && events && prefixes && suffixes {
					r.problem(resources.values[f.Resource], "resources."+f.Resource+".props.triggers", "%s and %s of %s want the same objects of bucket %s, which the service refuses",
						t.Name, other.Name, other.resource, t.Bucket)
				}
			}
			all = append(all, owned{f.Resource, t})
		}
	}
}

func keysOf(n *node) []string {
	if m := n.mapping(); m != nil {
		return m.keys
	}
	return nil
}

// actions checks hooks: what is run before and after a command.
func (r *reader) actions(o object, at string) {
	n := o.values["actions"]
	if n == nil {
		return
	}
	at = join(at, "actions")
	hooks := r.mapping(n, at, "pre-deploy", "post-deploy", "success-deploy", "fail-deploy", "complete-deploy")
	for _, hook := range hooks.keys {
		for i, item := range r.list(hooks, at, hook) {
			p := fmt.Sprintf("%s.%s[%d]", at, hook, i)
			run := r.mapping(item, p, "run", "path")
			r.text(run, p, "run", true)
			r.text(run, p, "path", false)
		}
	}
}

func (r *reader) function(n *node, at string) Function {
	o := r.mapping(n, at, "region", "functionName", "description", "runtime", "code", "handler", "role", "cpu", "memorySize", "diskSize", "timeout",
		"environmentVariables", "logConfig", "internetAccess", "vpcConfig", "resourceGroupId", "tags", "asyncInvokeConfig", "concurrencyConfig", "triggers")
	f := Function{
		Name:        r.pattern(o, at, "functionName", true, functionName, "at most 64 letters, digits, _ and -, no digit or - first"),
		Description: r.text(o, at, "description", false),
		Region:      r.pattern(o, at, "region", true, regionName, "a region such as cn-hangzhou"),
		Code:        r.text(o, at, "code", true),
		Handler:     r.text(o, at, "handler", true),
		Role:        r.pattern(o, at, "role", true, roleName, "a role's name or acs:ram::<account>:role/<name>"),
		MemoryMB:    r.integer(o, at, "memorySize", -1, 128, 32768, 64),
		DiskMB:      r.integer(o, at, "diskSize", 512, 512, 10240, 1),
		Timeout:     time.Duration(r.integer(o, at, "timeout", -1, 1, 86400, 1)) * time.Second,
		Environment: r.environment(o, at),
		Async:       r.async(o, at),
	}
	if runtime := r.text(o, at, "runtime", true); runtime != "" && runtime != "go1" {
		r.problem(o.values["runtime"], at+".runtime", "%q: the functions speak the runtime API, which exists on go1 only", runtime)
	}
	if f.Handler != "" && (path.IsAbs(f.Handler) || path.Clean(f.Handler) != f.Handler || strings.HasPrefix(f.Handler, "..")) {
		r.problem(o.values["handler"], at+".handler", "%q: want the executable's path in the code package, such as bin/plan", f.Handler)
	}
	if f.DiskMB != 512 && f.DiskMB != 10240 {
		r.problem(o.values["diskSize"], at+".diskSize", "%d: want 512 or 10240", f.DiskMB)
	}
	f.CPU = r.cpu(o, at, f.MemoryMB)
	if o.values["logConfig"] == nil {
		r.problem(n, at+".logConfig", "is missing: without it nothing is logged")
	}
	if l, p, ok := r.autoOr(o, at, "logConfig", "project", "logstore", "enableRequestMetrics", "enableInstanceMetrics", "logBeginRule"); ok {
		r.pattern(l, p, "project", true, logName, "3 to 63 lower-case letters, digits, _ and -")
		r.pattern(l, p, "logstore", true, logName, "3 to 63 lower-case letters, digits, _ and -")
		r.boolean(l, p, "enableRequestMetrics", false)
		r.boolean(l, p, "enableInstanceMetrics", false)
		r.oneOf(l, p, "logBeginRule", "DefaultRegex", "None")
	}
	if v, p, ok := r.autoOr(o, at, "vpcConfig", "vpcId", "vSwitchIds", "securityGroupId"); ok {
		r.pattern(v, p, "vpcId", true, vpcID, "a VPC such as vpc-abc")
		r.pattern(v, p, "securityGroupId", true, groupID, "a security group such as sg-abc")
		if len(r.list(v, p, "vSwitchIds")) == 0 {
			r.problem(v.at, p+".vSwitchIds", "there are none")
		}
		for i, n := range r.list(v, p, "vSwitchIds") {
			if id, ok := n.value.(string); !ok || !vSwitchID.MatchString(id) {
				r.problem(n, fmt.Sprintf("%s.vSwitchIds[%d]", p, i), "%v: want a switch such as vsw-abc", n.value)
			}
		}
	}
	r.boolean(o, at, "internetAccess", false)
	r.text(o, at, "resourceGroupId", false)
	tags := make(map[string]bool)
	for i, item := range r.list(o, at, "tags") {
		p := fmt.Sprintf("%s.tags[%d]", at, i)
		tag := r.mapping(item, p, "key", "value")
		key := r.pattern(tag, p, "key", true, tagKey, "at most 128 characters")
		if tags[key] {
			r.problem(item, p+".key", "%q stands twice", key)
		}
		tags[key] = true
		r.text(tag, p, "value", false)
	}
	if n := o.values["concurrencyConfig"]; n != nil {
		c := r.mapping(n, at+".concurrencyConfig", "reservedConcurrency")
		f.Reserved = r.integer(c, at+".concurrencyConfig", "reservedConcurrency", -1, 1, 300, 1)
	}
	r.triggers(o, at, &f)
	return f
}

// cpu reads the CPU share: 0.05 to 16 vCPU in steps of 0.05, with one to four GB of
// memory for each.
func (r *reader) cpu(o object, at string, memoryMB int) float64 {
	n := o.values["cpu"]
	if n == nil {
		r.problem(o.at, at+".cpu", "is missing")
		return 0
	}
	var cpu float64
	switch v := n.value.(type) {
	case float64:
		cpu = v
	case int64:
		cpu = float64(v)
	default:
		r.problem(n, at+".cpu", "want a number, this is %s", n.kind())
		return 0
	}
	steps := math.Round(cpu * 20)
	if cpu < 0.05 || cpu > 16 || math.Abs(cpu*20-steps) > 1e-9 {
		r.problem(n, at+".cpu", "%v: want 0.05 to 16 in steps of 0.05", cpu)
		return cpu
	}
	if gb := float64(memoryMB) / 1024; memoryMB > 0 && (gb < cpu || gb > 4*cpu) {
		r.problem(n, at+".cpu", "%v vCPU and %d MB: want one to four GB for each vCPU", cpu, memoryMB)
	}
	return cpu
}

// autoOr opens a setting that is a mapping, and reports false where it is missing or the
// word auto.
func (r *reader) autoOr(o object, at, key string, known ...string) (object, string, bool) {
	n := o.values[key]
	if n == nil || n.value == "auto" {
		return object{}, "", false
	}
	if n.mapping() == nil {
		r.problem(n, join(at, key), "want auto or a mapping, this is %s", n.kind())
		return object{}, "", false
	}
	return r.mapping(n, join(at, key), known...), join(at, key), true
}

// oneOf reads a string that is one of some words; without it, it is empty.
func (r *reader) oneOf(o object, at, key string, words ...string) string {
	text := r.text(o, at, key, false)
	if text != "" && !slices.Contains(words, text) {
		r.problem(o.values[key], join(at, key), "%q: want %s", text, strings.Join(words, " or "))
	}
	return text
}

func (r *reader) environment(o object, at string) map[string]string {
	out := make(map[string]string)
	n := o.values["environmentVariables"]
	if n == nil {
		return out
	}
	at += ".environmentVariables"
	variables := r.mapping(n, at, keysOf(n)...)
	total := 0
	for _, name := range variables.keys {
		if !variableName.MatchString(name) || strings.HasPrefix(name, "FC_") {
			r.problem(variables.values[name], join(at, name), "want letters, digits and _, a letter first, and not FC_, which is the platform's")
		}
		out[name] = r.text(variables, at, name, false)
		total += len(name) + len(out[name])
	}
	if total > maxEnvironment {
		r.problem(n, at, "%d bytes of names and values, at most %d", total, maxEnvironment)
	}
	return out
}

func (r *reader) async(o object, at string) Async {
	n := o.values["asyncInvokeConfig"]
	if n == nil {
		r.problem(o.at, at+".asyncInvokeConfig", "is missing: without it task ids are not kept apart")
		return Async{}
	}
	at += ".asyncInvokeConfig"
	c := r.mapping(n, at, "asyncTask", "maxAsyncRetryAttempts", "maxAsyncEventAgeInSeconds", "destinationConfig")
	if !r.boolean(c, at, "asyncTask", true) && c.values["asyncTask"] != nil {
		r.problem(c.values["asyncTask"], at+".asyncTask", "want true: without task mode a repeated task id runs twice")
	}
	a := Async{
		Retries: r.integer(c, at, "maxAsyncRetryAttempts", -1, 0, 8, 1),
		MaxAge:  time.Duration(r.integer(c, at, "maxAsyncEventAgeInSeconds", -1, 1, 604800, 1)) * time.Second,
	}
	if n := c.values["destinationConfig"]; n != nil {
		at += ".destinationConfig"
		d := r.mapping(n, at, "onSuccess", "onFailure")
		for _, key := range d.keys {
			to := r.mapping(d.values[key], join(at, key), "destination")
			arn := r.pattern(to, join(at, key), "destination", true, destination, "the ARN of a function, a queue or a topic")
			if key == "onSuccess" {
				a.OnSuccess = arn
			} else {
				a.OnFailure = arn
			}
		}
	}
	return a
}

func (r *reader) triggers(o object, at string, f *Function) {
	seen := make(map[string]bool)
	for i, n := range r.list(o, at, "triggers") {
		p := fmt.Sprintf("%s.triggers[%d]", at, i)
		t := r.mapping(n, p, "triggerName", "triggerType", "description", "qualifier", "invocationRole", "sourceArn", "triggerConfig")
		name := r.pattern(t, p, "triggerName", true, triggerName, "letters, digits, _ and -, no digit or - first")
		if seen[name] {
			r.problem(n, p+".triggerName", "%q stands twice", name)
		}
		seen[name] = true
		r.text(t, p, "description", false)
		role := r.pattern(t, p, "invocationRole", false, roleName, "a role's name or acs:ram::<account>:role/<name>")
		if q := r.text(t, p, "qualifier", false); q != "" && q != "LATEST" {
			r.problem(t.values["qualifier"], p+".qualifier", "%q: only LATEST is deployed", q)
		}
		if t.values["triggerConfig"] == nil {
			r.problem(n, p+".triggerConfig", "is missing")
			continue
		}
		if len(f.Events) > 0 {
			r.problem(n, p, "it stands behind an EventBridge trigger: the deploying tool leaves such a one out if the other has not changed; put %s last", f.Events[0].Name)
		}
		switch kind := r.text(t, p, "triggerType", true); kind {
		case "timer":
			f.Timers = append(f.Timers, r.timer(t, p, name))
		case "oss":
			o := r.objectTrigger(t, p, name, f.Region)
			o.Role = role
			f.Objects = append(f.Objects, o)
		case "eventbridge":
			f.Events = append(f.Events, r.eventTrigger(t, p, name))
		case "":
		default:
			r.problem(t.values["triggerType"], p+".triggerType", "%q: timer, oss and eventbridge are read here", kind)
		}
	}
}

func (r *reader) timer(t object, at, name string) Timer {
	if t.values["sourceArn"] != nil {
		r.problem(t.values["sourceArn"], at+".sourceArn", "a timer has no source")
	}
	at += ".triggerConfig"
	c := r.mapping(t.values["triggerConfig"], at, "cronExpression", "enable", "payload")
	timer := Timer{
		Name:    name,
		Cron:    r.text(c, at, "cronExpression", true),
		Enabled: r.boolean(c, at, "enable", true),
		Payload: r.text(c, at, "payload", false),
	}
	if timer.Cron != "" {
		var err error
		if timer.Schedule, err = ParseSchedule(timer.Cron); err != nil {
			r.problem(c.values["cronExpression"], at+".cronExpression", "%v", err)
		}
	}
	return timer
}

func (r *reader) objectTrigger(t object, at, name, region string) ObjectTrigger {
	out := ObjectTrigger{Name: name}
	arn := r.pattern(t, at, "sourceArn", true, bucketARN, "acs:oss:<region>:<account>:<bucket>")
	if m := bucketARN.FindStringSubmatch(arn); m != nil {
		out.Bucket = m[2]
		if region != "" && m[1] != region {
			r.problem(t.values["sourceArn"], at+".sourceArn", "%q: the bucket is in another region than the function, %s", arn, region)
		}
	}
	at += ".triggerConfig"
	c := r.mapping(t.values["triggerConfig"], at, "events", "filter")
	for i, n := range r.list(c, at, "events") {
		event, _ := n.value.(string)
		if !slices.Contains(createdEvents(), event) {
			r.problem(n, fmt.Sprintf("%s.events[%d]", at, i), "%v: want of %s", n.value, strings.Join(createdEvents(), ", "))
		}
		out.Events = append(out.Events, event)
	}
	if len(out.Events) == 0 {
		r.problem(t.values["triggerConfig"], at+".events", "there are none")
	}
	filter := r.mapping(c.values["filter"], at+".filter", "key")
	key := r.mapping(filter.values["key"], at+".filter.key", "prefix", "suffix")
	if key.values["prefix"] == nil {
		r.problem(t.values["triggerConfig"], at+".filter.key.prefix", "is missing")
	}
	out.Prefix = r.text(key, at+".filter.key", "prefix", false)
	// Without a suffix the function's own writes would trigger it.
	out.Suffix = r.text(key, at+".filter.key", "suffix", true)
	return out
}
