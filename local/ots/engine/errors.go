package engine

import (
	"errors"
	"fmt"
)

// The codes of errors, as the service spells them.
const (
	CodeAuthFailed          = "OTSAuthFailed"
	CodeNoPermission        = "OTSNoPermissionAccess"
	CodeParameterInvalid    = "OTSParameterInvalid"
	CodeInvalidPK           = "OTSInvalidPK"
	CodeObjectNotExist      = "OTSObjectNotExist"
	CodeObjectAlreadyExist  = "OTSObjectAlreadyExist"
	CodeConditionCheckFail  = "OTSConditionCheckFail"
	CodeQuotaExhausted      = "OTSQuotaExhausted"
	CodeTableNotReady       = "OTSTableNotReady"
	CodePartitionNotReady   = "OTSPartitionUnavailable"
	CodeOutOfRange          = "OTSDataOutOfRange"
	CodeRowConflict         = "OTSRowOperationConflict"
	CodeRequestTooLarge     = "OTSRequestBodyTooLarge"
	CodeOutOfColumnCount    = "OTSOutOfColumnCountLimit"
	CodeOutOfRowSize        = "OTSOutOfRowSizeLimit"
	CodeNotEnoughCapacity   = "OTSNotEnoughCapacityUnit"
	CodeInternal            = "OTSInternalServerError"
	CodeServerBusy          = "OTSServerBusy"
	CodeUnsupported         = "OTSUnsupportOperation"
	CodeTrimmedData         = "OTSTrimmedDataAccess"
	CodeMethodNotAllowed    = "OTSMethodNotAllowed"
	CodeThroughputTooOften  = "OTSTooFrequentReservedThroughputAdjustment"
	CodeSessionNotExist     = "OTSSessionNotExist"
	CodeServerUnavailable   = "OTSServerUnavailable"
	CodeRequestTimeout      = "OTSRequestTimeout"
	CodeCapacityExhausted   = "OTSCapacityUnitExhausted"
	CodeFlowControl         = "OTSFlowControl"
	CodeOperationThrottled  = "OTSOperationThrottled"
	CodeForbiddenCapacity   = "OTSForbiddenUpdateCapacityUnit"
	CodeStorageServerBusy   = "OTSStorageServerBusy"
	CodeTimeout             = "OTSTimeout"
	CodeSessionBusy         = "OTSSessionBusy"
	CodeTransactionTooLarge = "OTSOutOfTransactionDataSizeLimit"
)

// An Error is a refusal in the service's words.
type Error struct {
	Code    string
	Message string
}

func (e *Error) Error() string { return e.Code + ": " + e.Message }

// AsError turns any error into one of the service's; what is none of those is
// an internal error with its text.
func AsError(err error) *Error {
	if err == nil {
		return nil
	}
	var e *Error
	if errors.As(err, &e) {
		return e
	}
	return &Error{CodeInternal, err.Error()}
}

func refuse(code, format string, args ...any) *Error {
	return &Error{code, fmt.Sprintf(format, args...)}
}

func invalid(format string, args ...any) *Error {
	return refuse(CodeParameterInvalid, format, args...)
}

var (
	errNoTable   = &Error{CodeObjectNotExist, "Requested table does not exist."}
	errCondition = &Error{CodeConditionCheckFail, "Condition check failed."}
	errNoColumns = &Error{CodeParameterInvalid, "Attribute column is missing."}
)
