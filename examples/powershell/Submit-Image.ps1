<#
.SYNOPSIS
Submit one image and print its verdict. Needs Windows PowerShell 5.1 or PowerShell 7.
.EXAMPLE
.\Submit-Image.ps1 part.png ring SN-4711     # LINEWATCH_URL, LINEWATCH_API_KEY
#>
param(
    [Parameter(Mandatory)][string]$Image,
    [Parameter(Mandatory)][string]$Recipe,
    [string]$PartId = ""
)
$ErrorActionPreference = "Stop"
$ProgressPreference = "SilentlyContinue"

$root = if ($env:LINEWATCH_URL) { $env:LINEWATCH_URL } else { "http://127.0.0.1:8000" }
# The key is the same for every try, so the image is inspected once.
$headers = @{ "Idempotency-Key" = [guid]::NewGuid().ToString() }
if ($env:LINEWATCH_API_KEY) { $headers["Authorization"] = "Bearer $env:LINEWATCH_API_KEY" }

function Send-Request([hashtable]$Request) {
    foreach ($attempt in 0..9) {
        $pause = [math]::Min([math]::Pow(2, $attempt), 30)
        try {
            return Invoke-RestMethod @Request -Headers $headers -TimeoutSec 90
        }
        catch {
            $response = $_.Exception.Response
            if ($response) {
                $status = [int]$response.StatusCode
                if ($status -notin 408, 429, 502, 503, 504) { throw }
            }
            Start-Sleep -Seconds $pause
        }
    }
    throw "no answer"
}

$query = "recipe=$([uri]::EscapeDataString($Recipe))&part_id=$([uri]::EscapeDataString($PartId))"
$accepted = Send-Request @{ Method = "Post"; Uri = "$root/v1/inspections?$query"; InFile = $Image }
$result = Send-Request @{ Method = "Get"; Uri = "$root/v1/inspections/$($accepted.id)?wait=60" }
$result.effective_verdict
