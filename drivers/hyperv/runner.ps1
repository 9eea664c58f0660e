# Runs batches of operations on this host. Each line of standard input is a request, in JSON:
#   {"id": "1", "batches": [{"lock": NAME, "ops": [OPERATION, ...]}, ...]}
# and each answer is a line "provision:" and JSON in base64:
#   {"id": "1", "batches": [{"results": [{"ok": true, "rows": [...]} or {"ok": false, ...}]}, ...]}
# A batch ends with its first operation that fails. Nothing that comes in is ever run as a script:
# what may be called is named below, all else is data. drivers/hyperv/ops.py makes the operations.
# For Windows PowerShell 5.1 and PowerShell 7.
$ErrorActionPreference = 'Stop'
$ProgressPreference = 'SilentlyContinue'
$WarningPreference = 'SilentlyContinue'
$utf8 = New-Object System.Text.UTF8Encoding($false)
$cmdlets = @(
    'Get-VMHost', 'Get-VM', 'New-VM', 'Set-VM', 'Start-VM', 'Stop-VM', 'Remove-VM',
    'Remove-VMSavedState', 'Get-VMProcessor', 'Set-VMProcessor', 'Set-VMFirmware', 'Set-VMBios',
    'Get-VMNetworkAdapter', 'Add-VMNetworkAdapter', 'Set-VMNetworkAdapter',
    'Remove-VMNetworkAdapter', 'Get-VMHardDiskDrive', 'Get-VMDvdDrive', 'Add-VMDvdDrive',
    'Remove-VMDvdDrive', 'New-VHD', 'Checkpoint-VM', 'Get-VMSnapshot', 'Restore-VMSnapshot',
    'Remove-VMSnapshot', 'Get-VMSwitch', 'New-VMSwitch', 'Remove-VMSwitch', 'Get-NetAdapter',
    'Enable-NetAdapter', 'Disable-NetAdapter', 'Get-NetAdapterHardwareInfo',
    'Get-NetAdapterAdvancedProperty',
    'Set-NetAdapterAdvancedProperty', 'Get-NetAdapterBinding', 'Enable-NetAdapterBinding',
    'Disable-NetAdapterBinding', 'Get-NetAdapterRsc', 'Enable-NetAdapterRsc',
    'Disable-NetAdapterRsc', 'Get-NetAdapterStatistics', 'Get-NetIPAddress', 'Get-NetRoute',
    'Get-NetTCPConnection', 'Get-NetLbfoTeamMember', 'Get-CimInstance', 'Get-Item', 'New-Item',
    'Remove-Item', 'Test-Path', 'Restart-Computer'
)
$programs = @{ 'bcdedit' = 'bcdedit.exe'; 'cpugroups' = 'CpuGroups.exe'; 'whoami' = 'whoami.exe' }

# Text comes with a letter before it: PowerShell 7 would take what looks like a date for one.
function ConvertFrom-Given($given) {
    if ($given -is [string]) { return $given.Substring(1) }
    if ($given -is [array]) { return @(foreach ($one in $given) { ConvertFrom-Given $one }) }
    return $given
}

function ConvertTo-Told($value) {
    if ($null -eq $value -or $value -is [string]) { return $value }
    if ($value -is [Enum]) { return $value.ToString() }
    if ($value -is [Guid]) { return $value.ToString() }
    if ($value -is [DateTime]) { return $value.ToUniversalTime().ToString('o') }
    if ($value -is [TimeSpan]) { return $value.TotalSeconds }
    if ($value -is [ValueType]) { return $value }
    return [string]$value
}

# A property of an object, or of what its property has: "BandwidthSetting.MaximumBandwidth"; "." is
# the object itself.
function Get-Value($object, $name) {
    $value = $object
    foreach ($part in $name.Split('.')) {
        if ($part -ne '') { $value = $value.$part }
    }
    return $value
}

# Those of the objects whose properties have one of the values given.
function Select-Only($objects, $only) {
    foreach ($object in $objects) {
        $fits = $true
        foreach ($asked in $only.PSObject.Properties) {
            $wanted = @(ConvertFrom-Given $asked.Value)
            $value = Get-Value $object $asked.Name
            $told = ConvertTo-Told $value
            if ($wanted -notcontains $told) { $fits = $false }
        }
        if ($fits) { $object }
    }
}

function Invoke-Program($op) {
    if (-not $programs.ContainsKey($op.program)) { throw 'ProvisionNotAllowed' }
    $words = @(foreach ($word in $op.words) { ConvertFrom-Given $word })
    foreach ($word in $words) {
        if ($word -notmatch '^[A-Za-z0-9{}:,./_=-]+$') { throw 'ProvisionNotAllowed' }
    }
    $program = $programs[$op.program]
    $lines = @(& $program @words) -join ' | '
    $code = $LASTEXITCODE
    if ($code -ne 0 -and -not $op.lenient) { throw "ProvisionProgram: exit ${code}: $lines" }
    return @{ 'code' = $code; 'lines' = $lines }
}

# Parameters are as given, and objects that earlier operations of the batch gave back.
function Invoke-Cmdlet($op, $earlier) {
    if ($cmdlets -notcontains $op.cmdlet) { throw 'ProvisionNotAllowed' }
    $parameters = @{ 'ErrorAction' = 'Stop' }
    foreach ($given in $op.params.PSObject.Properties) {
        $parameters[$given.Name] = ConvertFrom-Given $given.Value
    }
    foreach ($asked in $op.take.PSObject.Properties) {
        $taken = @(
            foreach ($object in $earlier[$asked.Value.op]) {
                Get-Value $object $asked.Value.member
            }
        )
        if ($taken.Count -eq 0) { return }
        if ($taken.Count -eq 1) { $taken = $taken[0] }
        $parameters[$asked.Name] = $taken
    }
    & $op.cmdlet @parameters
}

function Invoke-Operation($op, $earlier) {
    if ($op.program) { return Invoke-Program $op }
    if ($op.write) {
        $path = ConvertFrom-Given $op.write
        [IO.File]::WriteAllBytes($path, [Convert]::FromBase64String($op.data))
        return
    }
    if ($op.rmdir) {
        $path = ConvertFrom-Given $op.rmdir
        try { [IO.Directory]::Delete($path) } catch { } # not empty, or not there: it stays so
        return
    }
    $found = @(Invoke-Cmdlet $op $earlier)
    if ($op.only) { $found = @(Select-Only $found $op.only) }
    if ($op.expect -eq 'none' -and $found.Count -gt 0) { throw 'ProvisionExists' }
    if ($op.expect -eq 'some' -and $found.Count -eq 0) { throw 'ProvisionMissing' }
    return $found
}

# Again and again, at most so many times: as long as it fails ("retry"), or none of what it gives
# back has a property ("until") that begins with a text ("begins").
function Wait-Operation($op, $earlier) {
    $found = @()
    $try = 0
    while ($try -lt $op.tries) {
        $try = $try + 1
        if ($try -gt 1) { Start-Sleep -Milliseconds $op.pause_ms }
        $done = $true
        try {
            $found = @(Invoke-Operation $op $earlier)
        } catch {
            $gone = $op.lenient -and $_.CategoryInfo.Category.ToString() -eq 'ObjectNotFound'
            if ($gone -or -not $op.retry -or $try -eq $op.tries) { throw }
            $done = $false
        }
        if ($done -and $op.until) {
            $done = $false
            foreach ($object in $found) {
                $value = Get-Value $object $op.until
                $told = [string](ConvertTo-Told $value)
                $begins = ConvertFrom-Given $op.begins
                if ($told.StartsWith($begins)) { $done = $true }
            }
        }
        if ($done) { break }
    }
    return $found
}

function ConvertTo-Row($object, $names) {
    $row = @{}
    foreach ($name in $names) {
        $value = Get-Value $object $name
        if ($value -is [System.Collections.IEnumerable] -and $value -isnot [string]) {
            $row[$name] = @(foreach ($one in $value) { ConvertTo-Told $one })
        } else {
            $row[$name] = ConvertTo-Told $value
        }
    }
    return $row
}

# "lenient": no such thing, cmdlet or program is an answer too, an empty one.
function Invoke-Batch($batch) {
    $earlier = New-Object System.Collections.ArrayList
    $results = New-Object System.Collections.ArrayList
    foreach ($op in $batch.ops) {
        $found = @()
        try {
            if ($op.tries) { $found = @(Wait-Operation $op $earlier) }
            else { $found = @(Invoke-Operation $op $earlier) }
        } catch {
            $category = $_.CategoryInfo.Category.ToString()
            if (-not ($op.lenient -and $category -eq 'ObjectNotFound')) {
                [void]$results.Add(@{
                    'ok' = $false; 'id' = $_.FullyQualifiedErrorId; 'category' = $category
                    'message' = $_.Exception.Message
                })
                break
            }
        }
        [void]$earlier.Add($found)
        $rows = @(foreach ($object in $found) { ConvertTo-Row $object $op.select })
        [void]$results.Add(@{ 'ok' = $true; 'rows' = $rows })
    }
    return @{ 'results' = @($results) }
}

# One batch at a time for each lock, whoever sent it: a batch whose client is gone is ended first.
function Invoke-Locked($batch) {
    if (-not $batch.lock) { return Invoke-Batch $batch }
    $name = 'Global\provision-' + $batch.lock
    $mutex = New-Object System.Threading.Mutex($false, $name)
    $held = $false
    try {
        try { $held = $mutex.WaitOne($batch.lock_ms) }
        catch { $held = $true } # its owner died: then it is ours
        if ($held) { return Invoke-Batch $batch }
        $failed = @{ 'ok' = $false; 'id' = 'ProvisionBusy'; 'category' = 'ResourceBusy'
            'message' = 'another batch of the same thing is still being done' }
        return @{ 'results' = @($failed) }
    } finally {
        if ($held) { $mutex.ReleaseMutex() }
        $mutex.Dispose()
    }
}

while ($true) {
    $line = [Console]::In.ReadLine()
    if ($null -eq $line) { break }
    if ($line.Trim() -eq '') { continue }
    $request = ConvertFrom-Json -InputObject $line
    $done = @(foreach ($batch in $request.batches) { Invoke-Locked $batch })
    $answer = @{ 'id' = $request.id; 'batches' = $done }
    $json = ConvertTo-Json -InputObject $answer -Depth 12 -Compress
    [Console]::Out.WriteLine('provision:' + [Convert]::ToBase64String($utf8.GetBytes($json)))
}
