package s3_test

import (
	"net/http"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	sdk "github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"

	local "github.com/tablevault/tablevault/local/s3"
	shared "github.com/tablevault/tablevault/shared/object/bucket"
	"github.com/tablevault/tablevault/shared/object/s3"
)

// A bucket says what it does to keep objects, and a store what is missing, or not told.
func TestProtection(t *testing.T) {
	t.Parallel()
	server := local.RunT(t)
	proxy := server.Proxy(t)
	retention := func(t *testing.T, bucket string, r types.DefaultRetention) {
		t.Helper()
		_, err := server.Client().PutObjectLockConfiguration(t.Context(), &sdk.PutObjectLockConfigurationInput{Bucket: &bucket,
			ObjectLockConfiguration: &types.ObjectLockConfiguration{ObjectLockEnabled: types.ObjectLockEnabledEnabled, Rule: &types.ObjectLockRule{DefaultRetention: &r}}})
		if err != nil {
			t.Fatal(err)
		}
	}
	deny := func(parameters ...string) {
		proxy.Set(&local.Fault{Kind: local.Denied, Call: local.Every, Match: func(r *http.Request) bool {
			return slices.ContainsFunc(parameters, r.URL.Query().Has)
		}})
	}
	const versions, promise = "keeps what is overwritten as an older version", "only the writers' own promise keeps objects from being overwritten"
	for _, c := range []struct {
		name    string
		locking local.Locking
		given   func(t *testing.T, bucket string)
		lock    string // of the address
		want    shared.Protection
	}{
		{name: "plain", want: shared.Protection{Flaws: []shared.Flaw{{About: "overwriting", Text: promise}, {About: "deleting", Text: "whoever has a key that may delete, deletes"}}}},
		{name: "versions", given: func(t *testing.T, bucket string) {
			if err := server.SetVersioning(t.Context(), bucket, true); err != nil {
				t.Fatal(err)
			}
		}, want: shared.Protection{Overwriting: versions, Flaws: []shared.Flaw{{About: "deleting", Text: "whoever has a key"}}}},
		{name: "suspended", given: func(t *testing.T, bucket string) {
			if err := server.SetVersioning(t.Context(), bucket, false); err != nil {
				t.Fatal(err)
			}
		}, want: shared.Protection{Flaws: []shared.Flaw{{About: "overwriting", Text: promise}, {About: "deleting", Text: "whoever has a key"}}}},
		{name: "unused-lock", locking: local.Locked,
			want: shared.Protection{Overwriting: versions, Flaws: []shared.Flaw{{About: "deleting", Text: "the bucket has Object Lock, and new objects are not locked"}}}},
		{name: "lock-of-address", locking: local.Locked, lock: "COMPLIANCE",
			want: shared.Protection{Overwriting: versions, Deleting: "locks each object for 30 days (compliance)"}},
		{name: "lock-by-default", locking: local.Locked, given: func(t *testing.T, bucket string) {
			retention(t, bucket, types.DefaultRetention{Mode: types.ObjectLockRetentionModeGovernance, Days: aws.Int32(7)})
		}, want: shared.Protection{Overwriting: versions, Deleting: "locks each object for 7 days (governance), which those can lift who may bypass that"}},
		{name: "lock-for-years", locking: local.Locked, given: func(t *testing.T, bucket string) {
			retention(t, bucket, types.DefaultRetention{Mode: types.ObjectLockRetentionModeCompliance, Years: aws.Int32(2)})
		}, want: shared.Protection{Overwriting: versions, Deleting: "locks each object for 2 years (compliance)"}},
		{name: "address-over-default", locking: local.Locked, lock: "GOVERNANCE", given: func(t *testing.T, bucket string) {
			retention(t, bucket, types.DefaultRetention{Mode: types.ObjectLockRetentionModeCompliance, Days: aws.Int32(7)})
		}, want: shared.Protection{Overwriting: versions, Deleting: "locks each object for 30 days (governance), which those can lift who may bypass that"}},
		{name: "lock-that-is-not-there", lock: "COMPLIANCE",
			want: shared.Protection{Flaws: []shared.Flaw{{About: "overwriting", Text: promise}, {About: "deleting", Text: "the vault's address asks for locked objects", Fatal: true}}}},
		{name: "lock-not-told", locking: local.Locked, given: func(*testing.T, string) { deny("object-lock") },
			want: shared.Protection{Overwriting: versions, Unknown: []string{"s3:GetBucketObjectLockConfiguration"}}},
		{name: "versions-not-told", given: func(*testing.T, string) { deny("versioning") },
			want: shared.Protection{Flaws: []shared.Flaw{{About: "deleting", Text: "whoever has a key"}}, Unknown: []string{"s3:GetBucketVersioning"}}},
		{name: "nothing-told", lock: "COMPLIANCE", given: func(*testing.T, string) { deny("versioning", "object-lock") },
			want: shared.Protection{Deleting: "locks each object for 30 days (compliance)", Unknown: []string{"s3:GetBucketVersioning", "s3:GetBucketObjectLockConfiguration"}}},
	} {
		t.Run(c.name, func(t *testing.T) {
			if err := server.CreateBucket(t.Context(), c.name, c.locking); err != nil {
				t.Fatal(err)
			}
			config, err := s3.Parse("s3://" + c.name + "/prefix?region=" + local.Region + "&endpoint=" + proxy.URL)
			if err != nil {
				t.Fatal(err)
			}
			config.Credentials = keys(server.KeyID, server.Secret, "")
			if c.lock != "" {
				config.Lock, config.Retain = c.lock, 30*24*time.Hour
			}
			proxy.Set()
			if c.given != nil {
				c.given(t, c.name)
			}
			got, err := open(t, config).Protection(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if len(got.Flaws) != len(c.want.Flaws) {
				t.Fatalf("%+v, want %+v", got, c.want)
			}
			for i := range got.Flaws {
				if f, want := &got.Flaws[i], c.want.Flaws[i]; f.Fix == "" || !strings.HasPrefix(f.Text, want.Text) {
					t.Errorf("%+v, want %+v and what to do", *f, want)
				} else {
					f.Fix, f.Text = "", want.Text
				}
			}
			if !reflect.DeepEqual(got, c.want) {
				t.Errorf("%+v, want %+v", got, c.want)
			}
		})
	}
	t.Run("no such bucket", func(t *testing.T) {
		config, err := s3.Parse("s3://nobodys?region=" + local.Region + "&endpoint=" + server.URL)
		if err != nil {
			t.Fatal(err)
		}
		config.Credentials = keys(server.KeyID, server.Secret, "")
		store, err := s3.New(config)
		if err != nil {
			t.Fatal(err)
		}
		if p, err := store.Protection(t.Context()); err == nil || !strings.Contains(err.Error(), "there is no bucket nobodys") {
			t.Errorf("%+v, %v", p, err)
		}
	})
}
