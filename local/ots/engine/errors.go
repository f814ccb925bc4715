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
	CodeMetaNotMatch        = "OTSMetaNotMatch"
)

// An Error is a refusal in the service's words.
type Error struct {
	Code    string
	Message string
}

func (e *Error) Error() string { return e.Code + ": " + e.Message }

// AsError turns any error into one of the service's; what is none of those is an internal
// error with its text.
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

// Text is what the service says with an error of the code where there is no more to say,
// or the code itself.
func Text(code string) string {
	switch code {
	case CodeObjectNotExist:
		return "Requested table does not exist."
	case CodeObjectAlreadyExist:
		return "Requested table already exists."
	case CodeConditionCheckFail:
		return "Condition check failed."
	case CodeTableNotReady:
		return "The table is not ready."
	case CodePartitionNotReady:
		return "The partition is not available."
	case CodeRowConflict:
		return "Data is being modified by the other request."
	case CodeRequestTooLarge:
		return "The size of POST data is too large."
	case CodeRequestTimeout:
		return "Request timeout."
	case CodeMethodNotAllowed:
		return "Only POST method for requests is supported."
	case CodeOutOfRowSize:
		return "The total data size of columns in one row exceeded the limit."
	case CodeOutOfColumnCount:
		return "The number of columns in one row exceeded the limit."
	case CodeNotEnoughCapacity:
		return "Remaining capacity unit is not enough."
	case CodeCapacityExhausted:
		return "Capacity unit is not enough."
	case CodeFlowControl, CodeOperationThrottled:
		return "The requests have been throttled."
	case CodeQuotaExhausted:
		return "Too frequent table operations."
	case CodeThroughputTooOften:
		return "Capacity unit adjustment is too frequent."
	case CodeForbiddenCapacity:
		return "Your instance is forbidden to update capacity unit."
	case CodeNoPermission:
		return "You have no permission to access the requested resource, please contact the resource owner."
	case CodeInternal:
		return "Internal server error."
	case CodeServerBusy, CodeStorageServerBusy:
		return "Server is busy."
	case CodeTimeout:
		return "Operation timeout."
	case CodeServerUnavailable:
		return "Server is not available."
	case CodeTrimmedData:
		return "Requested stream data is already trimmed or does not exist."
	case CodeSessionNotExist:
		return "Session not exist or may be timeout."
	}
	return code
}

// Refusal is an error of the code with the service's text.
func Refusal(code string) *Error { return &Error{code, Text(code)} }

var (
	errNoTable   = Refusal(CodeObjectNotExist)
	errCondition = Refusal(CodeConditionCheckFail)
	errNoColumns = &Error{CodeParameterInvalid, "Attribute column is missing."}
)
