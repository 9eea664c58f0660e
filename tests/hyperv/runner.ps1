# The tests' own: runs what it is given on standard input, without asking what that is.
$ErrorActionPreference = 'Stop'
$ProgressPreference = 'SilentlyContinue'
$utf8 = New-Object System.Text.UTF8Encoding($false)
while ($true) {
    $line = [Console]::In.ReadLine()
    if ($null -eq $line) { break }
    $text = $utf8.GetString([Convert]::FromBase64String($line))
    $op = ConvertFrom-Json -InputObject $text
    $answer = @{ 'ok' = $true; 'rows' = @() }
    try {
        if ($op.write) {
            [IO.File]::WriteAllBytes($op.write, [Convert]::FromBase64String($op.data))
        } elseif ($op.program) {
            $lines = @(& $op.program @($op.words))
            $answer.rows = @(@{ 'code' = $LASTEXITCODE; 'lines' = $lines })
        } else {
            $parameters = @{}
            foreach ($given in $op.params.PSObject.Properties) {
                $parameters[$given.Name] = $given.Value
            }
            $found = @(& $op.cmdlet @parameters)
            $answer.rows = @(
                foreach ($one in $found) {
                    $row = @{}
                    foreach ($name in $op.select) {
                        $value = $one
                        if ($name -ne '.') { $value = $one.$name }
                        if ($value -is [Enum] -or $value -is [Guid]) { $value = $value.ToString() }
                        $row[$name] = $value
                    }
                    $row
                }
            )
        }
    } catch {
        $answer = @{
            'ok' = $false; 'id' = $_.FullyQualifiedErrorId; 'message' = $_.Exception.Message
            'category' = $_.CategoryInfo.Category.ToString()
        }
    }
    $json = ConvertTo-Json -InputObject $answer -Depth 6 -Compress
    [Console]::Out.WriteLine([Convert]::ToBase64String($utf8.GetBytes($json)))
}
